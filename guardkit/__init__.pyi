"""The public names, each with the module that it comes from: ``__init__.py`` reads them here."""

from .calibration.fit import fit_calibration as fit_calibration
from .errors import ArtefactError as ArtefactError
from .errors import ConfigError as ConfigError
from .errors import DataError as DataError
from .errors import GuardkitError as GuardkitError
from .errors import TrainingInterrupted as TrainingInterrupted
from .hookspecs import hookimpl as hookimpl
from .model.artefact import ArtefactConfig as ArtefactConfig
from .model.artefact import choose_pooling as choose_pooling
from .model.artefact import read_config as read_config
from .model.artefact import write_json as write_json
from .model.device import pick_device as pick_device
from .model.device import pick_dtype as pick_dtype
from .model.loaded import Model as Model
from .model.loaded import load_model as load_model
from .model.memory import halved_on_oom as halved_on_oom
from .model.onnx import Network as Network
from .model.onnx import onnx_network as onnx_network
from .policy.router import PolicyRouter as PolicyRouter
from .policy.router import load_policy as load_policy
from .policy.schema import Policy as Policy
from .text.bpe import open_tokenizer as open_tokenizer
from .text.bpe import read_whole as read_whole
from .text.bpe import train_bpe as train_bpe
from .text.windows import pool_windows as pool_windows
from .text.windows import windows as windows
from .types import Adapted as Adapted
from .types import BeforeAfter as BeforeAfter
from .types import Classifier as Classifier
from .types import ClassifierFamily as ClassifierFamily
from .types import Combiner as Combiner
from .types import Decision as Decision
from .types import Evidence as Evidence
from .types import Examples as Examples
from .types import HasCost as HasCost
from .types import HasFeatures as HasFeatures
from .types import Pooling as Pooling
from .types import Progress as Progress
from .types import RawScores as RawScores
from .types import SupportsAdapt as SupportsAdapt
from .types import SupportsExport as SupportsExport
from .types import SupportsImport as SupportsImport
from .types import SupportsSharing as SupportsSharing
from .types import TrainingData as TrainingData

__version__: str
