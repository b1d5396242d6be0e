from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_INPUT: _ClassVar[Role]
    ROLE_WEIGHT: _ClassVar[Role]
    ROLE_TENSOR: _ClassVar[Role]
    ROLE_LOSS: _ClassVar[Role]
    ROLE_GRADIENT: _ClassVar[Role]
    ROLE_CLIPPED: _ClassVar[Role]
    ROLE_STATE: _ClassVar[Role]
    ROLE_SCALAR: _ClassVar[Role]
ROLE_UNSPECIFIED: Role
ROLE_INPUT: Role
ROLE_WEIGHT: Role
ROLE_TENSOR: Role
ROLE_LOSS: Role
ROLE_GRADIENT: Role
ROLE_CLIPPED: Role
ROLE_STATE: Role
ROLE_SCALAR: Role

class Version(_message.Message):
    __slots__ = ("major", "minor")
    MAJOR_FIELD_NUMBER: _ClassVar[int]
    MINOR_FIELD_NUMBER: _ClassVar[int]
    major: int
    minor: int
    def __init__(self, major: _Optional[int] = ..., minor: _Optional[int] = ...) -> None: ...

class Header(_message.Message):
    __slots__ = ("schema", "session", "variables", "tensors", "stats", "policy", "clip", "versions", "worker")
    class VersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    STATS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    CLIP_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    schema: Version
    session: int
    variables: _containers.RepeatedCompositeFieldContainer[Variable]
    tensors: _containers.RepeatedScalarFieldContainer[str]
    stats: _containers.RepeatedScalarFieldContainer[str]
    policy: str
    clip: str
    versions: _containers.ScalarMap[str, str]
    worker: int
    def __init__(self, schema: _Optional[_Union[Version, _Mapping]] = ..., session: _Optional[int] = ..., variables: _Optional[_Iterable[_Union[Variable, _Mapping]]] = ..., tensors: _Optional[_Iterable[str]] = ..., stats: _Optional[_Iterable[str]] = ..., policy: _Optional[str] = ..., clip: _Optional[str] = ..., versions: _Optional[_Mapping[str, str]] = ..., worker: _Optional[int] = ...) -> None: ...

class Variable(_message.Message):
    __slots__ = ("name", "layer", "shape", "dtype", "backward_order")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    BACKWARD_ORDER_FIELD_NUMBER: _ClassVar[int]
    name: str
    layer: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    dtype: str
    backward_order: int
    def __init__(self, name: _Optional[str] = ..., layer: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[str] = ..., backward_order: _Optional[int] = ...) -> None: ...

class SpanChunk(_message.Message):
    __slots__ = ("first_step", "last_step", "columns", "generation")
    FIRST_STEP_FIELD_NUMBER: _ClassVar[int]
    LAST_STEP_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    first_step: _containers.RepeatedScalarFieldContainer[int]
    last_step: _containers.RepeatedScalarFieldContainer[int]
    columns: _containers.RepeatedCompositeFieldContainer[Column]
    generation: int
    def __init__(self, first_step: _Optional[_Iterable[int]] = ..., last_step: _Optional[_Iterable[int]] = ..., columns: _Optional[_Iterable[_Union[Column, _Mapping]]] = ..., generation: _Optional[int] = ...) -> None: ...

class Column(_message.Message):
    __slots__ = ("stat", "keeps", "width", "values", "places")
    STAT_FIELD_NUMBER: _ClassVar[int]
    KEEPS_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    stat: str
    keeps: str
    width: int
    values: bytes
    places: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, stat: _Optional[str] = ..., keeps: _Optional[str] = ..., width: _Optional[int] = ..., values: _Optional[bytes] = ..., places: _Optional[_Iterable[int]] = ...) -> None: ...

class Finding(_message.Message):
    __slots__ = ("role", "name", "size", "nan", "pos_inf", "neg_inf", "samples")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    NAN_FIELD_NUMBER: _ClassVar[int]
    POS_INF_FIELD_NUMBER: _ClassVar[int]
    NEG_INF_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    role: Role
    name: str
    size: int
    nan: int
    pos_inf: int
    neg_inf: int
    samples: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, role: _Optional[_Union[Role, str]] = ..., name: _Optional[str] = ..., size: _Optional[int] = ..., nan: _Optional[int] = ..., pos_inf: _Optional[int] = ..., neg_inf: _Optional[int] = ..., samples: _Optional[_Iterable[int]] = ...) -> None: ...

class Alert(_message.Message):
    __slots__ = ("step", "first_step", "action", "findings", "window", "session", "replay", "batch", "notes", "replica", "microbatch", "worker", "error")
    STEP_FIELD_NUMBER: _ClassVar[int]
    FIRST_STEP_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    REPLAY_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    MICROBATCH_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    step: int
    first_step: int
    action: str
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    window: SpanChunk
    session: int
    replay: Replay
    batch: str
    notes: _containers.RepeatedScalarFieldContainer[str]
    replica: int
    microbatch: int
    worker: int
    error: str
    def __init__(self, step: _Optional[int] = ..., first_step: _Optional[int] = ..., action: _Optional[str] = ..., findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ..., window: _Optional[_Union[SpanChunk, _Mapping]] = ..., session: _Optional[int] = ..., replay: _Optional[_Union[Replay, _Mapping]] = ..., batch: _Optional[str] = ..., notes: _Optional[_Iterable[str]] = ..., replica: _Optional[int] = ..., microbatch: _Optional[int] = ..., worker: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class Replay(_message.Message):
    __slots__ = ("outcome", "notes", "chains", "seconds", "dump")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    CHAINS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    DUMP_FIELD_NUMBER: _ClassVar[int]
    outcome: str
    notes: _containers.RepeatedScalarFieldContainer[str]
    chains: _containers.RepeatedCompositeFieldContainer[Chain]
    seconds: float
    dump: str
    def __init__(self, outcome: _Optional[str] = ..., notes: _Optional[_Iterable[str]] = ..., chains: _Optional[_Iterable[_Union[Chain, _Mapping]]] = ..., seconds: _Optional[float] = ..., dump: _Optional[str] = ...) -> None: ...

class Chain(_message.Message):
    __slots__ = ("links",)
    LINKS_FIELD_NUMBER: _ClassVar[int]
    links: _containers.RepeatedCompositeFieldContainer[Link]
    def __init__(self, links: _Optional[_Iterable[_Union[Link, _Mapping]]] = ...) -> None: ...

class Link(_message.Message):
    __slots__ = ("op_type", "op_name", "phase", "layer", "source", "variable", "tensor", "output", "kind", "samples", "inputs", "stack", "entry")
    OP_TYPE_FIELD_NUMBER: _ClassVar[int]
    OP_NAME_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    VARIABLE_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    STACK_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    op_type: str
    op_name: str
    phase: str
    layer: str
    source: Source
    variable: str
    tensor: str
    output: Counted
    kind: str
    samples: _containers.RepeatedScalarFieldContainer[int]
    inputs: _containers.RepeatedCompositeFieldContainer[Operand]
    stack: _containers.RepeatedCompositeFieldContainer[Source]
    entry: Entry
    def __init__(self, op_type: _Optional[str] = ..., op_name: _Optional[str] = ..., phase: _Optional[str] = ..., layer: _Optional[str] = ..., source: _Optional[_Union[Source, _Mapping]] = ..., variable: _Optional[str] = ..., tensor: _Optional[str] = ..., output: _Optional[_Union[Counted, _Mapping]] = ..., kind: _Optional[str] = ..., samples: _Optional[_Iterable[int]] = ..., inputs: _Optional[_Iterable[_Union[Operand, _Mapping]]] = ..., stack: _Optional[_Iterable[_Union[Source, _Mapping]]] = ..., entry: _Optional[_Union[Entry, _Mapping]] = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("way", "shape", "elements")
    WAY_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    ELEMENTS_FIELD_NUMBER: _ClassVar[int]
    way: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    elements: _containers.RepeatedCompositeFieldContainer[Index]
    def __init__(self, way: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., elements: _Optional[_Iterable[_Union[Index, _Mapping]]] = ...) -> None: ...

class Index(_message.Message):
    __slots__ = ("at",)
    AT_FIELD_NUMBER: _ClassVar[int]
    at: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, at: _Optional[_Iterable[int]] = ...) -> None: ...

class Source(_message.Message):
    __slots__ = ("file", "line", "function", "text", "before", "after")
    FILE_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    file: str
    line: int
    function: str
    text: str
    before: _containers.RepeatedScalarFieldContainer[str]
    after: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, file: _Optional[str] = ..., line: _Optional[int] = ..., function: _Optional[str] = ..., text: _Optional[str] = ..., before: _Optional[_Iterable[str]] = ..., after: _Optional[_Iterable[str]] = ...) -> None: ...

class Counted(_message.Message):
    __slots__ = ("size", "nan", "pos_inf", "neg_inf")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    NAN_FIELD_NUMBER: _ClassVar[int]
    POS_INF_FIELD_NUMBER: _ClassVar[int]
    NEG_INF_FIELD_NUMBER: _ClassVar[int]
    size: int
    nan: int
    pos_inf: int
    neg_inf: int
    def __init__(self, size: _Optional[int] = ..., nan: _Optional[int] = ..., pos_inf: _Optional[int] = ..., neg_inf: _Optional[int] = ...) -> None: ...

class Operand(_message.Message):
    __slots__ = ("name", "dtype", "shape", "counts", "min", "max", "zeros")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    ZEROS_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    counts: Counted
    min: float
    max: float
    zeros: int
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., counts: _Optional[_Union[Counted, _Mapping]] = ..., min: _Optional[float] = ..., max: _Optional[float] = ..., zeros: _Optional[int] = ...) -> None: ...
