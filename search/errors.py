"""The errors a user can cause or must act on.

SearchError                 anything below: printed as one message, without a traceback, exit status 1
├── DefinitionError         a study file or a command line option does not hold what it must
├── DataError               a data set is missing, damaged or of the wrong form
├── LedgerError             a study's ledger cannot be opened, read or written
│   ├── OwnedError          another coordinator runs this study
│   └── FingerprintError    the study exists under another definition
├── ViewError               Optuna's storage or MLflow cannot be used
├── TrainerError            a trainer cannot be started or refuses the study
└── StudyStoppedError       the study gave up: the same error failed trial after trial
"""


class SearchError(Exception):
    """A message for the user: where, what must hold, what was got, what to do."""


class DefinitionError(SearchError):
    """A study file or a command line option does not hold what it must."""


class DataError(SearchError):
    """A data set is missing, damaged or of the wrong form."""


class LedgerError(SearchError):
    """A study's ledger cannot be opened, read or written."""


class OwnedError(LedgerError):
    """Another coordinator runs this study."""


class FingerprintError(LedgerError):
    """The study exists under another definition."""


class ViewError(SearchError):
    """Optuna's storage or MLflow cannot be used."""


class TrainerError(SearchError):
    """A trainer cannot be started or refuses the study."""


class StudyStoppedError(SearchError):
    """The study gave up: the same error failed trial after trial."""
