"""The public names and their homes; each home is loaded when one of its names is first used."""

from .cases import ANSWER as ANSWER
from .cases import BATCH as BATCH
from .cases import LENGTH as LENGTH
from .cases import PROMPT as PROMPT
from .cases import Case as Case
from .cases import cases_of as cases_of
from .energy import Energy as Energy
from .load import disturbance as disturbance
from .orders import serve as serve
from .process import PackageProcess as PackageProcess
from .spread import CONFIDENCE as CONFIDENCE
from .spread import ENOUGH as ENOUGH
from .spread import TOO_FEW as TOO_FEW
from .spread import WITHIN as WITHIN
from .spread import Ratio as Ratio
from .spread import Spread as Spread
from .spread import ratio_of as ratio_of
from .spread import spread_of as spread_of
from .timing import Timer as Timer
from .timing import timer_of as timer_of
