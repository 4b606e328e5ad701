"""RunSpec: what one cell trains, as plain values, and the identity that follows from them.

A cell's identity is the SHA-256 of its canonical JSON. A field that is None is left out, so that a
field added later with None as its default changes no identity. A method's hyperparameters are in
it, also those that are None, except those that the method got later and that have their default
(`Method.added`).
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.messages import one_line, shown
from benchmark.plain_values import native, plain, tuples, types_of

SCHEMA_VERSION = 1
NOT_IDENTITY = ("protocol", "departs")
PRECISIONS = ("bfloat16", "float32", "tf32")
OPTIMIZERS = ("adam", "sgd")
SCHEDULES = ("constant", "step")
SCHEDULED = ("thresholds", "weights")
FILE_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
RUN_ID = re.compile(r"[0-9a-f]{12}")
_Kind = typing.TypeVar("_Kind")


class SpecError(ValueError):
    """A field, name or value given by the user does not exist or does not fit."""

    exit_code = 2


def by_name(kind: type[_Kind]) -> type[_Kind]:
    """Class decorator: for wrong arguments a dataclass raises SpecError, which names the known fields.

    Python's own TypeError for a misspelt field in a suite file does not name them.
    """
    construct, section = kind.__init__, "" if kind.__name__ == "RunSpec" else kind.__name__.lower()
    known = {each.name: each for each in dataclasses.fields(kind)}  # type: ignore[arg-type]
    needed = [name for name, each in known.items() if each.default is each.default_factory is dataclasses.MISSING]

    @functools.wraps(construct)
    def checked(self: Any, *positional: object, **given: Any) -> None:
        if positional:
            raise SpecError(f"{kind.__name__} takes its fields by name: {', '.join(known)}")
        check_names(given, known, f"{section} field".strip())
        if missing := [name for name in needed if name not in given]:
            raise SpecError(f"{section}.{missing[0]} is missing".strip("."))
        construct(self, **given)

    setattr(kind, "__init__", checked)  # noqa: B010  mypy refuses the assignment
    return kind


@by_name
@dataclass(frozen=True, kw_only=True)
class Data:
    """The data set: which examples, and how they are presented.

    train_limit, test_limit: only this many examples, the first ones. validation: this many training
    examples, the last ones, are held out, and `test` accuracy is measured on them. standardize: by
    the training set's mean and deviation per channel; otherwise pixels are in [0, 1].
    normalization: None, or "official" for the constants of the authors' code instead (cifar10,
    standardize only). augment: None, "crop-flip" (zero-pad 4, random crop, random horizontal flip),
    or for imagenet "resized-crop-flip". shape [c, h, w], classes: of `synthetic` data only.
    image_size: rows and columns of `imagenet` data only, None for 224.
    """

    name: str
    train_limit: int | None = None
    test_limit: int | None = None
    validation: int | None = None
    standardize: bool = False
    augment: str | None = None
    shape: tuple[int, ...] | None = None
    classes: int | None = None
    image_size: int | None = None
    normalization: str | None = None


@by_name
@dataclass(frozen=True, kw_only=True)
class Model:
    """The architecture.

    initialization, hidden_state: see docs/protocols.md; None is torch's default. widths: of every
    hidden layer in order, units or channels; None for the architecture's own.
    """

    name: str
    initialization: str | None = None
    hidden_state: str | None = None
    widths: tuple[int, ...] | None = None


@by_name
@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """name: sgd or adam. schedule: constant, or step (times gamma at each milestone, in epochs).

    schedule_of: what follows the schedule. None: all parameters; `thresholds`: a method's
    thresholds only; `weights`: all parameters but these. The others keep lr.
    micro_batch_size: examples in one forward pass; None: the whole batch. A step adds up the
    gradients of batch_size / micro_batch_size passes, in one process or in several. Batch
    normalisation sees one pass at a time.
    """

    name: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    batch_size: int = 64
    epochs: int = 1
    schedule: str = "constant"
    milestones: tuple[int, ...] | None = None
    gamma: float | None = None
    micro_batch_size: int | None = None
    schedule_of: str | None = None


@by_name
@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One cell: everything that decides its bits, and nothing else.

    method: name, version and every hyperparameter but the density and those left out at their
    default. density: the share of maskable weights that the method is to keep, None for dense and
    emergent methods. precision: of training: float32, tf32 (only on a GPU) or bfloat16; evaluation
    is always float32. step_records: epochs (counted from the first) whose every step is recorded.
    protocol, departs: memberships, not part of the identity.
    """

    data: Data
    model: Model
    optimizer: Optimizer
    method: Mapping[str, Any]
    density: float | None = None
    seed: int = 0
    precision: str = "float32"
    step_records: int | None = None
    protocol: tuple[str, ...] = field(default=(), compare=False)
    departs: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        for name in types_of(RunSpec):
            object.__setattr__(self, name, native(getattr(self, name)))
        validate(self)

    def to_dict(self) -> dict[str, Any]:
        """The identity as nested plain values, without those that are None."""
        tree = {name: value for name, value in plain(self).items() if name not in NOT_IDENTITY}
        return typing.cast(dict[str, Any], tree)

    @functools.cached_property
    def canonical_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @functools.cached_property
    def run_id(self) -> str:
        return digest(self.canonical_json)

    def __hash__(self) -> int:
        return hash(self.canonical_json)

    @property
    def label(self) -> str:
        """For people: the model, the method, and what distinguishes this cell from similar ones."""
        alpha = self.method.get("alpha")
        parts = [self.model.name, str(self.method["name"])]
        parts += [] if self.model.widths is None else ["widths=" + "-".join(map(str, self.model.widths))]
        parts += [f"alpha={alpha:g}"] if alpha is not None else []
        parts += [f"density={self.density:g}"] if self.density is not None else []
        parts += [self.precision] if self.precision != "float32" else []
        return " ".join([*parts, f"seed={self.seed}"])


def in_both(first: RunSpec, second: RunSpec) -> RunSpec:
    """A cell that two lists have, with its memberships of both.

    Where it departs in one list and not in the other, it is the other's: it departs from nothing, and
    takes no protocol from the list in which it departs.
    """
    if bool(first.departs) != bool(second.departs):
        return second if first.departs else first
    protocol = tuple(dict.fromkeys([*first.protocol, *second.protocol]))
    return second if protocol == second.protocol else dataclasses.replace(second, protocol=protocol)


def from_dict(tree: Mapping[str, Any], *, protocol: Iterable[str] = (), departs: Iterable[str] = ()) -> RunSpec:
    """The RunSpec that `to_dict` wrote. Raises SpecError for unknown or missing fields."""
    sections = {"data": Data, "model": Model, "optimizer": Optimizer}
    values: dict[str, Any] = dict(tree)
    for name, kind in sections.items():
        values[name] = kind(**{key: tuples(value) for key, value in values.get(name, {}).items()})
    if isinstance(values.get("method"), Mapping):
        values["method"] = {key: tuples(value) for key, value in values["method"].items()}
    return RunSpec(**values, protocol=tuple(protocol), departs=tuple(departs))


def from_json(text: str) -> RunSpec:
    """The RunSpec of a text that somebody else may have written; its method need not be installed.

    Raises SpecError, in one line, unless the text is the canonical JSON of a RunSpec.
    """
    try:
        spec = from_dict(json.loads(text))
        canonical = spec.canonical_json == text
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise SpecError(f"spec is no JSON of a cell: {one_line(str(error))}") from error
    if not canonical:
        raise SpecError("spec is not the canonical JSON of its cell: it was written or changed by another program")
    return spec


def replace_fields(spec: RunSpec, changes: Mapping[str, Any]) -> RunSpec:
    """The spec with dotted fields, such as `optimizer.epochs`, changed together. Raises SpecError."""
    tree = spec.to_dict()
    for dotted, value in changes.items():
        _replace(tree, dotted, value)
    return from_dict(tree, protocol=spec.protocol, departs=spec.departs)


def _replace(tree: dict[str, Any], dotted: str, value: Any) -> None:
    section, _, name = dotted.partition(".")
    check_names([section], [f.name for f in dataclasses.fields(RunSpec) if f.name not in NOT_IDENTITY], "field")
    if name and section == "method":
        tree["method"] = {**tree["method"], name: value}
    elif name and isinstance(tree.get(section), dict):
        tree[section] = {**tree[section], name: value}
    elif name or isinstance(tree.get(section), dict):
        raise SpecError(f"cannot set {dotted}: give a plain field such as optimizer.epochs or seed")
    else:
        tree[section] = value


def fields(spec: RunSpec) -> dict[str, Any]:
    """Every dotted field with its value, including those that are no part of the identity."""
    found: dict[str, Any] = {}
    for outer in types_of(RunSpec):
        value = getattr(spec, outer)
        if isinstance(value, (Data, Model, Optimizer)):
            kind: Any = type(value)
            found |= {f"{outer}.{name}": getattr(value, name) for name in types_of(kind)}
        elif isinstance(value, Mapping):
            found |= {f"{outer}.{key}": inner for key, inner in value.items()}
        else:
            found[outer] = value
    return found


def nearest(name: str, valid: Iterable[str]) -> str:
    """The end of every message about an unknown name: `did you mean 'x'? valid: …`."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}valid: {', '.join(names)}"


def unknown(what: str, name: str, valid: Iterable[str], *, form: str) -> SpecError:
    """The error for an unknown name where a file is accepted too. form: how a file is given."""
    stem, colon, inside = name.partition(":")
    if Path(f"{stem}.py").is_file():
        return SpecError(f"unknown {what} '{name}': did you mean the file {stem}.py{colon}{inside}?")
    return SpecError(f"unknown {what} '{name}': {nearest(name, valid)}; or give a {form}")


def check_names(given: Iterable[str], valid: Iterable[str], what: str) -> None:
    """Raises SpecError for the first name that is not among the valid ones."""
    known = list(valid)
    for name in given:
        if name not in known:
            raise SpecError(f"unknown {what} '{name}': {nearest(name, known)}")


def check_file_name(name: object, what: str) -> None:
    """Raises SpecError unless files can be named after a data set, model, method or suite of this name."""
    if not isinstance(name, str) or not FILE_NAME.fullmatch(name) or name in (".", ".."):
        raise SpecError(f"{what} is {name!r:.120}: it must be 1 to 100 of the characters A-Z a-z 0-9 . _ -")


def check_run_id(run_id: object) -> None:
    """Raises SpecError unless it is what `RunSpec.run_id` can be: a cell's folder is named after it."""
    if not isinstance(run_id, str) or not RUN_ID.fullmatch(run_id):
        raise SpecError(f"run_id is {run_id!r:.120}: it must be twelve hexadecimal digits")


def validate(spec: RunSpec) -> None:
    """Check types and ranges of every field that needs no other package. Raises SpecError."""
    for section in (spec, spec.data, spec.model, spec.optimizer):
        where = "" if section is spec else f"{type(section).__name__.lower()}."
        kind: Any = type(section)
        for name, bases in types_of(kind).items():
            _check_type(where, name, getattr(section, name), bases)
    _check_method(spec.method)
    check_file_name(spec.data.name, "data.name")
    check_file_name(spec.model.name, "model.name")
    if spec.data.normalization is not None and not spec.data.standardize:
        raise SpecError("data.normalization needs data.standardize")
    for name, value in fields(spec).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise SpecError(f"{name} is {value}: it must be finite")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise SpecError(f"{name} is a number of {len(f'{value:b}')} bits: it must fit in 64")
    check_names([spec.precision], PRECISIONS, "precision")
    _check_optimizer(spec.optimizer)
    _check_range("density", spec.density, 0, 1, open_low=True)
    _check_range("optimizer.lr", spec.optimizer.lr, 0, math.inf)
    _check_range("optimizer.momentum", spec.optimizer.momentum, 0, 1)
    _check_range("optimizer.weight_decay", spec.optimizer.weight_decay, 0, math.inf)
    sizes = ("train_limit", "test_limit", "validation", "classes", "image_size")
    counts = {f"data.{n}": getattr(spec.data, n) for n in sizes}
    counts |= {f"optimizer.{n}": getattr(spec.optimizer, n) for n in ("batch_size", "epochs", "micro_batch_size")}
    for name, count in counts.items():
        _check_range(name, count, 1, math.inf)
    if spec.optimizer.micro_batch_size is not None:
        _check_micro_batches(spec)
    _check_range("seed", spec.seed, 0, 2**53 - 1)  # every table holds it exactly
    _check_counts("model.widths", spec.model.widths, "units of each hidden layer")
    _check_counts("data.shape", spec.data.shape, "channels, rows and columns")


def check_processes(spec: RunSpec, processes: int) -> None:
    """Raises SpecError if the processes cannot share a step's forward passes equally."""
    batch = spec.optimizer.batch_size
    passes = batch // (spec.optimizer.micro_batch_size or batch)
    if passes % processes:
        raise SpecError(
            f"{spec.label}: {processes} processes cannot share {passes} forward passes a step equally: give "
            f"--set optimizer.micro_batch_size=SIZE so that {batch} / SIZE is a multiple of {processes}"
        )


def _check_micro_batches(spec: RunSpec) -> None:
    micro, batch = spec.optimizer.micro_batch_size, spec.optimizer.batch_size
    if micro is not None and batch % micro:
        raise SpecError(f"optimizer.micro_batch_size is {micro}: it must divide optimizer.batch_size, {batch}")
    if spec.model.hidden_state == "carried":
        raise SpecError("optimizer.micro_batch_size is set: a model with model.hidden_state takes a batch in one pass")


def _check_method(method: Mapping[str, Any]) -> None:
    """Hyperparameters need names that are Python identifiers, and values for JSON; alpha is a number."""
    if "name" not in method:
        raise SpecError("method.name is missing")
    check_file_name(method["name"], "method.name")
    _check_type("method.", "version", method.get("version", 1), (int,))
    _check_type("method.", "alpha", method.get("alpha"), (float, types.NoneType))  # a column of numbers
    for name, value in method.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise SpecError(f"the method has a hyperparameter {name!r:.120}: its name must be a Python identifier")
        try:
            json.dumps(plain(value))
        except TypeError:
            raise SpecError(
                f"method.{name} is {shown(value)}: it must be a number, a text, None or a list of these"
            ) from None


def _check_optimizer(optimizer: Optimizer) -> None:
    check_names([optimizer.name], OPTIMIZERS, "optimizer.name")
    check_names([optimizer.schedule], SCHEDULES, "optimizer.schedule")
    if optimizer.name == "adam" and (optimizer.momentum or optimizer.nesterov):
        raise SpecError("optimizer.momentum and optimizer.nesterov are of sgd, not adam")
    if optimizer.schedule == "step" and not optimizer.milestones:
        raise SpecError(
            "optimizer.schedule=step needs optimizer.milestones, the epochs at which lr falls, such as [80, 120]"
        )
    if optimizer.schedule_of is not None:
        check_names([optimizer.schedule_of], SCHEDULED, "optimizer.schedule_of")
        if optimizer.schedule == "constant":
            raise SpecError("optimizer.schedule_of is set, but optimizer.schedule is constant: use schedule=step")
    if optimizer.nesterov and not optimizer.momentum:
        raise SpecError("optimizer.nesterov needs optimizer.momentum above 0")
    _check_counts("optimizer.milestones", optimizer.milestones, "epochs")
    _check_range("optimizer.gamma", optimizer.gamma, 0, 1, open_low=True)


def check_schedule(optimizer: Optimizer) -> None:
    """Raises SpecError for values that change nothing in the training.

    Only new cells are checked, because stored ones may have such values.
    """
    milestones = optimizer.milestones or ()
    if len({*milestones}) < len(milestones):
        raise SpecError(f"optimizer.milestones is {list(milestones)}: it names an epoch twice")
    unused = [f"optimizer.{name}" for name in ("milestones", "gamma") if getattr(optimizer, name) is not None]
    if optimizer.schedule == "constant" and unused:
        flags = " ".join(f"--set {name}=None" for name in unused)
        raise SpecError(
            f"optimizer.schedule is constant, so {' and '.join(unused)} would change nothing: leave out what is set, "
            f"or give {flags}"
        )


def _check_counts(name: str, counts: tuple[int, ...] | None, what: str) -> None:
    if any(isinstance(count, bool) or not isinstance(count, int) or count < 1 for count in counts or ()):
        raise SpecError(f"{name} is {list(counts or ())}: it must hold {what}, 1 or more")


def _check_range(name: str, value: float | None, low: float, high: float, *, open_low: bool = False) -> None:
    if value is None or (low < value <= high) or (value == low and not open_low):
        return
    bracket = "(" if open_low else "["
    top = ")" if high == math.inf else "]"
    most = high if isinstance(high, int) else f"{high:g}"
    raise SpecError(f"{name} is {value}: it must lie in {bracket}{low:g}, {most}{top}")


def _check_type(where: str, name: str, value: Any, bases: tuple[type, ...]) -> None:
    fits = bool in bases if isinstance(value, bool) else isinstance(value, bases)
    if not fits and not (float in bases and type(value) is int):
        names = " or ".join("none" if base is types.NoneType else base.__name__ for base in bases)
        raise SpecError(f"{where}{name} is {value!r}: it must be {names}")


def digest(canonical_json: str) -> str:
    """The run id of a cell."""
    return hashlib.sha256(canonical_json.encode()).hexdigest()[:12]
