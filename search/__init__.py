"""The search service: asks for trials, has them trained, decides, and keeps the record. It knows no torch.

commands       run              bring a study to its number of trials, and say what it found
               serve            the Optuna dashboard and the MLflow UI, on loopback
               delete           remove a study from the ledger and both views
               confirm          is the gain real, how large on new data, which configuration to take
               ablate           which of the winner's regularizers does anything
               report           write what was found as one HTML file
               reproduce        train one trial again, and compare
               options          what these share
a study        definition       StudyDefinition: what a study file must hold; fingerprint
               space            kinds of parameter; what was drawn (raw) -> what is trained (effective)
               rules, wording   what an objective accepts of a value; what is wrong with a file, in words
the record     events           what can happen in a study
               ledger           append and read events; one owner at a time
               state            apply(state, event): trials, attempts, outcomes (pure)
the decisions  sampling         the next trial: the baseline, then Optuna's samplers, seeded per ask
               promise          what trials in training promise the sampler
               tpe              Optuna's TPE, the trials ranked once an ask
               asking           the sampler at work beside the coordinator
               flight           how many trials may be in flight, and slots be filled (pure)
               admission        which trial of a search comes next, and on which trainer
               planned          the same of a phase beyond the search, from the plan of its stages
               cohort           which trainer takes a trial, and in what company (pure)
               pruning          which trials end at a report (pure)
               diagnosis        what a learning curve says: a label, its evidence, a remedy (pure)
               diagnoses        those of all trials of a study, as more of them finish
               recovery         who is trained again when a population raises or a trainer dies (pure)
               retention        which trials keep their weights, and which is the champion (pure)
the answer     confirmation     which configurations are trained again, and on which seeds (pure)
               conclusions      what that found, in numbers and in words (pure)
               ablation         the winner taken apart: what to train, and what it says (pure)
               reproduction     a trial beside its reproduction (pure)
               predictions      what networks said of each test example
               cost             each trial's share of its trainers' time (pure)
               statistics       intervals over seeds and examples, comparisons, tests, power (pure)
               verdicts         what they say in words: does it help, which to take, what each part does (pure)
               importance       how much each parameter matters, two ways, with intervals (pure)
               landscape        dose and response of each regularizer; expected best against budget (pure)
               cautions         warnings on the space: widen, shrink, too few trials (pure)
the work       session          a study is taken up, trained and let go
               phase            a phase beyond the search: trained by its plan, tested once
               records          a study as its ledger tells it, for who only reads
               launch           how many trainers, on which device or cores
               interruption     signals and the time limit
               coordinator      the loop: admit, append, decide, evict
               contract         the protocols of an objective, and the messages to and from a trainer
               trainer          the process that holds a device: trains populations, as its messages say
               opening          loads a study's objective there; the only importer of objectives
               capacity         how many slots of a structure train at once: measured, and remembered
               device           the time and the memory of a device
               executors        starts trainers: in this process, or as local processes
               processes        starts a process that this one alone ends, and that ends with it
               checkpoint       weights on disk, whole or not at all, with their SHA-256
the views      viewer           the process that writes them, at the lowest priority
               follower         brings a view up to the ledger, in a thread of its own
               optuna_view, mlflow_view
               optuna_tables    Optuna's tables, written many rows at a time
               figures          the pictures and tables of a trial, drawn once
               drawing          confusion matrices and learning curves as PNG
               champion         registers the best network with MLflow
the report     reporting        from a study's state and predictions to what the report says (pure)
               headline         its answer: confirmation, ablation, confusions, calibration (pure)
               provenance       where its numbers come from, what they cost, uses of the test set (pure)
               findings         what a report says: records of texts and numbers
               page             how: one HTML page, from report.html.j2
               charts           its charts as inline SVG
the terminal   display          what is seen while a study runs
               result           what was found, in sentences and as a table
               estimate         --dry-run
everywhere     workspace        where files lie
               errors           what a user can cause or must act on

Vocabulary, beyond the field's own words (study, trial, sampler, pruner, rung, epoch):
    structure    whatever decides tensor shapes, the graph or the number of updates an epoch; all else is fusible,
                 one number per slot: lr, weight_decay, l1, l2, dropout, label_smoothing, augmentation
    population   the trials of one structure that train as one stacked model; a lone trial is a population of one
    replicate    one training within a trial, with its own seed and fold; a trial has one unless its study says
                 `replicates` or `folds`
    slot         one row of a population; it holds one replicate
    phase        what is trained beyond the search, a study within the study: its trials are called runs, and belong
                 to stages; confirm-1, ablate-1, reproduce-1, ...
    attempt      one training of a trial from its first epoch; an interrupted trial has several
    baseline     trial 0: every parameter as [baseline] says, trained to its last epoch
    raw          what the sampler drew; effective: what is trained and recorded (below off_below it is 0)
    ledger       the append-only record of everything that happened, the only truth
    view         a store filled from the ledger for people and other tools: Optuna's storage, MLflow
    coordinator  the one process of a study that asks, decides and writes the ledger
    trainer      a process that holds one device and its populations
    update       one optimizer step; Optuna's `step` is our epoch
"""
