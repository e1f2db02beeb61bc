"""The fitting loop and all that it is made of."""

from nfvi.training.anneal import ADAPTIVE, ANNEAL, Anneal, is_adaptive, tempering_lengths
from nfvi.training.callbacks import (
    CheckElboConvergence,
    CheckParametersConvergence,
    Checkpoint,
    GradientTracker,
    ProgressBar,
    TensorBoard,
    Tracker,
    has_bar,
    with_progress,
)
from nfvi.training.captured import stepper
from nfvi.training.checkpoint_file import read_checkpoint
from nfvi.training.controls import CAP, FIRST
from nfvi.training.crew import Crew
from nfvi.training.defaults import (
    N_MC,
    RESTARTS,
    STEPS,
    default_anneal,
    default_draws,
    default_gradient,
    default_hold,
    default_learning_rate,
    default_n_mc,
    default_restarts,
    default_steps,
)
from nfvi.training.ensemble import Ensemble
from nfvi.training.failure import late_errors
from nfvi.training.history import History
from nfvi.training.interrupt import catch_interrupt
from nfvi.training.loop import Trainer
from nfvi.training.loop_state import Control, Pruned
from nfvi.training.minibatch import Anchors
from nfvi.training.natural_gradient import NaturalGradient
from nfvi.training.noise import REPLICATES, qmc_elbo
from nfvi.training.objectives import Objective
from nfvi.training.optimizers import OptimizerSpec, make_optimizer
from nfvi.training.ranks import Distribute, Ranks
from nfvi.training.rate_ladder import find_learning_rate
from nfvi.training.schedule import LearningRate, Tempering
from nfvi.training.settings import check_settings
from nfvi.training.setup import NOMINAL_STEPS, Plan, build_trainer, trainer_of_guide
from nfvi.training.snapshot import restore
from nfvi.training.state import Callback, CallbackLike, Stop, TrainState
from nfvi.training.step import Compile, check_compile

__all__ = [
    "ADAPTIVE",
    "ANNEAL",
    "CAP",
    "FIRST",
    "NOMINAL_STEPS",
    "N_MC",
    "REPLICATES",
    "RESTARTS",
    "STEPS",
    "Anchors",
    "Anneal",
    "Callback",
    "CallbackLike",
    "CheckElboConvergence",
    "CheckParametersConvergence",
    "Checkpoint",
    "Compile",
    "Control",
    "Crew",
    "Distribute",
    "Ensemble",
    "GradientTracker",
    "History",
    "LearningRate",
    "NaturalGradient",
    "Objective",
    "OptimizerSpec",
    "Plan",
    "ProgressBar",
    "Pruned",
    "Ranks",
    "Stop",
    "Tempering",
    "TensorBoard",
    "Tracker",
    "TrainState",
    "Trainer",
    "build_trainer",
    "catch_interrupt",
    "check_compile",
    "check_settings",
    "default_anneal",
    "default_draws",
    "default_gradient",
    "default_hold",
    "default_learning_rate",
    "default_n_mc",
    "default_restarts",
    "default_steps",
    "find_learning_rate",
    "has_bar",
    "is_adaptive",
    "late_errors",
    "make_optimizer",
    "qmc_elbo",
    "read_checkpoint",
    "restore",
    "stepper",
    "tempering_lengths",
    "trainer_of_guide",
    "with_progress",
]
