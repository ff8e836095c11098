"""Rows of Parquet files, read in chunks."""

from collections.abc import Callable, Iterator, Sequence

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from model_code.errors import MarketError, SchemaError
from model_code.market.stream.rows import CHUNK_ROWS, present

# of a damaged footer: pyarrow raises UnicodeDecodeError (a ValueError) for names
UNREADABLE = (pa.ArrowException, OSError, ValueError)
_BUFFER = 1 << 20  # bytes of a column that are read at once: a row group may be the whole file

Convert = Callable[[pa.Table, str], pa.Table]


def read_schema(fs: fsspec.AbstractFileSystem, path: str) -> tuple[pa.Schema, int]:
    """The columns of a file, and how many rows it has.

    Raises:
        MarketError: it is truncated or not Parquet.
    """
    try:
        with fs.open(path, "rb") as file:
            found = pq.ParquetFile(file)
            return found.schema_arrow, int(found.metadata.num_rows)
    except UNREADABLE as error:
        raise _unreadable(path, error) from error


def read_chunks(
    fs: fsspec.AbstractFileSystem,
    path: str,
    names: Sequence[str],
    *,
    size: int = CHUNK_ROWS,
    dictionaries: Sequence[str] = (),
) -> Iterator[pa.Table]:
    """The rows of a file, in chunks.

    Args:
        fs: where the file is.
        path: the file.
        names: of the columns.
        size: rows in a chunk.
        dictionaries: columns of text to read as dictionaries.

    Raises:
        MarketError: it is truncated or not Parquet.
    """
    try:
        with fs.open(path, "rb") as file:
            # pre_buffer would keep the bytes of the whole file
            found = pq.ParquetFile(
                file, pre_buffer=False, buffer_size=_BUFFER, read_dictionary=list(dictionaries)
            )
            for batch in found.iter_batches(size, columns=list(names), use_threads=False):
                yield pa.Table.from_batches([batch])
    except UNREADABLE as error:
        raise _unreadable(path, error) from error


class ParquetRows:
    """The rows of one or more files, one after the other.

    Attributes:
        present: columns that a file has.

    Args:
        fs: where the files are.
        paths: the files in the order of their rows.
        names: of the columns to read; a file may lack some.
        convert: applied to each chunk, with the file's path.
        where: the files, for messages.
        size: rows in a chunk.
        absent: columns that no file may have; they are null then.

    Raises:
        MarketError: a file is truncated or not Parquet.
        SchemaError: the files' columns cannot be made one type.
    """

    def __init__(
        self,
        fs: fsspec.AbstractFileSystem,
        paths: Sequence[str],
        names: Sequence[str],
        convert: Convert,
        where: str,
        size: int = CHUNK_ROWS,
        absent: pa.Schema | None = None,
    ) -> None:
        self._fs, self._paths, self._convert, self._size = fs, paths, convert, size
        self._names: dict[str, list[str]] = {}
        schemas = []
        for path in paths:
            schema, _ = read_schema(fs, path)
            self._names[path] = [name for name in schema.names if name in names]
            empty = schema.empty_table().select(self._names[path])
            schemas.append(convert(empty, path).schema.remove_metadata())
        try:
            found = pa.unify_schemas(schemas, promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise SchemaError(
                f"the day's parts have different columns: {error}",
                where=where,
                remedy="write all parts of a day with the same columns and types",
            ) from error
        self.present = found.names
        for field in absent or ():
            found = found if field.name in found.names else found.append(field)
        self._schema = found

    @property
    def schema(self) -> pa.Schema:
        """Of every chunk."""
        return self._schema

    def chunks(self, names: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows from the first on, in at least one chunk."""
        wanted = self._schema.names if names is None else present(self._schema, names)
        none = pa.schema([self._schema.field(name) for name in wanted]).empty_table()
        some = False
        for path in self._paths:
            own = [name for name in self._names[path] if name in wanted]
            for chunk in read_chunks(self._fs, path, own, size=self._size):
                some = True
                found = self._convert(chunk, path)
                if found.schema != none.schema:
                    found = pa.concat_tables([none, found], promote_options="permissive")
                yield found
        if not some:
            yield none


def _unreadable(path: str, error: Exception) -> MarketError:
    return MarketError(
        f"not readable as Parquet, truncated or corrupt: {error}",
        where=path,
        remedy="copy or download this file again; it is incomplete",
    )
