"""The parameters as shared memory, and their history: deltas, log, restore."""

from understudy.weights.checkpoint import Checkpoint
from understudy.weights.conflicts import ConflictReport, PairConflict, measure_conflicts
from understudy.weights.diagnosing import Diagnosis, LiveWeights, TensorState, diagnose
from understudy.weights.errors import (
    HistoryBroken,
    HistoryBusy,
    MappingBroken,
    StorageFailed,
    UnknownCommit,
    WeightsError,
    WeightsMismatch,
)
from understudy.weights.heads import HeadLayout, HeadPart, read_config
from understudy.weights.history import WeightHistory
from understudy.weights.merging import MergeReport, apply_recipe, merge
from understudy.weights.methods import METHODS
from understudy.weights.movement import Movement, MovementReport, measure_movement, pair_delta, pair_streams
from understudy.weights.ownership import last_owner, owned, teaching
from understudy.weights.recipe_files import DTYPES, parse_recipe, read_recipe
from understudy.weights.recipes import Recipe, RecipeError, RecipeInput, RecipeSlice, Setting, constant
from understudy.weights.records import WeightCommit, changes_held, lessons_held, read_commits
from understudy.weights.shared import (
    SharedWeights,
    Window,
    distinct_parameters,
    find_mappings,
    remove_abandoned,
)
from understudy.weights.stored import AlreadyThere, NotTensors, StoredTensors
from understudy.weights.syncing import SyncReport
from understudy.weights.tidying import Tidied, tidy
from understudy.weights.vectors import (
    INITIAL,
    ModelState,
    NotFinite,
    VectorOrigin,
    VectorReport,
    make_vector,
    negate_vector,
    read_origin,
    write_state,
)
from understudy.weights.verifying import Verification, verify_history
from understudy.weights.viewing import HistoryView

__all__ = [
    "DTYPES",
    "INITIAL",
    "METHODS",
    "AlreadyThere",
    "Checkpoint",
    "ConflictReport",
    "Diagnosis",
    "HeadLayout",
    "HeadPart",
    "HistoryBroken",
    "HistoryBusy",
    "HistoryView",
    "LiveWeights",
    "MappingBroken",
    "MergeReport",
    "ModelState",
    "Movement",
    "MovementReport",
    "NotFinite",
    "NotTensors",
    "PairConflict",
    "Recipe",
    "RecipeError",
    "RecipeInput",
    "RecipeSlice",
    "Setting",
    "SharedWeights",
    "StorageFailed",
    "StoredTensors",
    "SyncReport",
    "TensorState",
    "Tidied",
    "UnknownCommit",
    "VectorOrigin",
    "VectorReport",
    "Verification",
    "WeightCommit",
    "WeightHistory",
    "WeightsError",
    "WeightsMismatch",
    "Window",
    "apply_recipe",
    "changes_held",
    "constant",
    "diagnose",
    "distinct_parameters",
    "find_mappings",
    "last_owner",
    "lessons_held",
    "make_vector",
    "measure_conflicts",
    "measure_movement",
    "merge",
    "negate_vector",
    "owned",
    "pair_delta",
    "pair_streams",
    "parse_recipe",
    "read_commits",
    "read_config",
    "read_origin",
    "read_recipe",
    "remove_abandoned",
    "teaching",
    "tidy",
    "verify_history",
    "write_state",
]
