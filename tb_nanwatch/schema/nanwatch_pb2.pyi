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
ROLE_UNSPECIFIED: Role
ROLE_INPUT: Role
ROLE_WEIGHT: Role
ROLE_TENSOR: Role
ROLE_LOSS: Role
ROLE_GRADIENT: Role
ROLE_CLIPPED: Role

class Version(_message.Message):
    __slots__ = ("major", "minor")
    MAJOR_FIELD_NUMBER: _ClassVar[int]
    MINOR_FIELD_NUMBER: _ClassVar[int]
    major: int
    minor: int
    def __init__(self, major: _Optional[int] = ..., minor: _Optional[int] = ...) -> None: ...

class Header(_message.Message):
    __slots__ = ("schema", "session", "variables", "tensors", "stats", "policy", "clip", "versions")
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
    schema: Version
    session: int
    variables: _containers.RepeatedCompositeFieldContainer[Variable]
    tensors: _containers.RepeatedScalarFieldContainer[str]
    stats: _containers.RepeatedScalarFieldContainer[str]
    policy: str
    clip: str
    versions: _containers.ScalarMap[str, str]
    def __init__(self, schema: _Optional[_Union[Version, _Mapping]] = ..., session: _Optional[int] = ..., variables: _Optional[_Iterable[_Union[Variable, _Mapping]]] = ..., tensors: _Optional[_Iterable[str]] = ..., stats: _Optional[_Iterable[str]] = ..., policy: _Optional[str] = ..., clip: _Optional[str] = ..., versions: _Optional[_Mapping[str, str]] = ...) -> None: ...

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
    __slots__ = ("stat", "keeps", "width", "values")
    STAT_FIELD_NUMBER: _ClassVar[int]
    KEEPS_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    stat: str
    keeps: str
    width: int
    values: bytes
    def __init__(self, stat: _Optional[str] = ..., keeps: _Optional[str] = ..., width: _Optional[int] = ..., values: _Optional[bytes] = ...) -> None: ...

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
    __slots__ = ("step", "first_step", "action", "findings", "window", "session")
    STEP_FIELD_NUMBER: _ClassVar[int]
    FIRST_STEP_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    step: int
    first_step: int
    action: str
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    window: SpanChunk
    session: int
    def __init__(self, step: _Optional[int] = ..., first_step: _Optional[int] = ..., action: _Optional[str] = ..., findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ..., window: _Optional[_Union[SpanChunk, _Mapping]] = ..., session: _Optional[int] = ...) -> None: ...
