//! Reads GGUF headers: metadata and the table of tensors, nothing else.
//!
//! Every count and length in the file is checked against what the file can
//! hold before anything is allocated, so that damaged or hostile input costs no
//! more memory than its own size. Files are read with plain reads, never
//! mapped: a file that shrinks while it is open then gives an error and not a
//! SIGBUS.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use candle_core::quantized::GgmlDType;

use crate::error::{LoadError, LoadErrorKind};

const MAX_METADATA_ENTRIES: u64 = 1 << 14;
const MAX_TENSORS: u64 = 1 << 16;
const MAX_HEADER_BYTES: u64 = 256 << 20;
const MAX_NAME_BYTES: u64 = 1 << 10;
const MAX_ELEMENTS: u64 = 1 << 36;

/// The header of a GGUF file.
#[derive(Debug)]
pub(crate) struct Gguf {
    pub(crate) metadata: HashMap<String, Value>,
    pub(crate) tensors: HashMap<String, TensorEntry>,
    /// Where tensor data begins in the file.
    pub(crate) data_offset: u64,
}

/// One tensor of the table. Dimensions are in the usual order, outermost first.
#[derive(Debug, Clone)]
pub(crate) struct TensorEntry {
    pub(crate) dtype: GgmlDType,
    pub(crate) shape: Vec<usize>,
    /// From the start of the data.
    pub(crate) offset: u64,
    pub(crate) size_bytes: u64,
}

/// One metadata value. Arrays of arrays do not occur in models and are refused.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    Texts(Vec<String>),
}

impl Gguf {
    /// Reads the header. `file_bytes` is the size of the whole file; `path` is for messages.
    pub(crate) fn read(source: impl Read, file_bytes: u64, path: &Path) -> Result<Self, LoadError> {
        let mut reader = Reader {
            source,
            position: 0,
            file_bytes,
            path,
        };
        reader.check_magic()?;
        let tensor_count = reader.count("tensor count", MAX_TENSORS)?;
        let metadata_count = reader.count("metadata count", MAX_METADATA_ENTRIES)?;
        let metadata = read_metadata(&mut reader, metadata_count)?;
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(Value::Int(value)) if (1..=4096).contains(value) && value % 8 == 0 => {
                *value as u64
            }
            Some(_) => {
                return Err(reader.broken("general.alignment is not a multiple of 8 up to 4096"));
            }
        };
        let mut tensors = HashMap::with_capacity(tensor_count as usize);
        for _ in 0..tensor_count {
            let (name, entry) = read_tensor_entry(&mut reader, alignment)?;
            if tensors.insert(name.clone(), entry).is_some() {
                return Err(reader.broken(format!("tensor {name} is listed twice")));
            }
        }
        let data_offset = reader.position.next_multiple_of(alignment);
        let gguf = Self {
            metadata,
            tensors,
            data_offset,
        };
        gguf.check_extents(file_bytes, path)?;
        Ok(gguf)
    }

    /// Tensors must lie inside the file and must not overlap.
    fn check_extents(&self, file_bytes: u64, path: &Path) -> Result<(), LoadError> {
        let mut extents: Vec<_> = self
            .tensors
            .iter()
            .map(|(name, t)| (t.offset, t.size_bytes, name))
            .collect();
        extents.sort_unstable();
        let mut end = 0;
        for (offset, size, name) in extents {
            if offset < end {
                return Err(LoadError::broken(
                    path,
                    format!("tensor {name} overlaps another tensor"),
                ));
            }
            end = offset + size;
            if self.data_offset.saturating_add(end) > file_bytes {
                return Err(LoadError::broken(
                    path,
                    format!(
                        "the file is truncated: tensor {name} ends at byte {}, the file at {file_bytes}",
                        self.data_offset.saturating_add(end)
                    ),
                ));
            }
        }
        Ok(())
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn int(&self, key: &str) -> Option<i64> {
        match self.metadata.get(key) {
            Some(Value::Int(value)) => Some(*value),
            _ => None,
        }
    }

    pub(crate) fn float(&self, key: &str) -> Option<f64> {
        match self.metadata.get(key) {
            Some(Value::Float(value)) => Some(*value),
            Some(Value::Int(value)) => Some(*value as f64),
            _ => None,
        }
    }

    pub(crate) fn bool(&self, key: &str) -> Option<bool> {
        match self.metadata.get(key) {
            Some(Value::Bool(value)) => Some(*value),
            _ => None,
        }
    }

    pub(crate) fn texts(&self, key: &str) -> Option<&[String]> {
        match self.metadata.get(key) {
            Some(Value::Texts(values)) => Some(values),
            _ => None,
        }
    }

    pub(crate) fn ints(&self, key: &str) -> Option<&[i64]> {
        match self.metadata.get(key) {
            Some(Value::Ints(values)) => Some(values),
            _ => None,
        }
    }
}

fn read_metadata<R: Read>(
    reader: &mut Reader<'_, R>,
    count: u64,
) -> Result<HashMap<String, Value>, LoadError> {
    let mut metadata = HashMap::new();
    for _ in 0..count {
        let key = reader.text("metadata key", MAX_NAME_BYTES)?;
        let kind = reader.u32()?;
        let value = reader.value(kind, &key)?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(reader.broken(format!("metadata key {key} occurs twice")));
        }
    }
    Ok(metadata)
}

fn read_tensor_entry<R: Read>(
    reader: &mut Reader<'_, R>,
    alignment: u64,
) -> Result<(String, TensorEntry), LoadError> {
    let name = reader.text("tensor name", MAX_NAME_BYTES)?;
    let dimensions = reader.u32()?;
    if !(1..=4).contains(&dimensions) {
        return Err(reader.broken(format!("tensor {name} has {dimensions} dimensions")));
    }
    let mut shape = Vec::new();
    let mut elements: u64 = 1;
    for _ in 0..dimensions {
        let length = reader.u64()?;
        elements = elements
            .checked_mul(length)
            .filter(|n| *n > 0 && *n <= MAX_ELEMENTS)
            .ok_or_else(|| reader.broken(format!("tensor {name} has an impossible shape")))?;
        shape.push(length as usize);
    }
    // The file lists the innermost dimension first.
    shape.reverse();
    let dtype = reader.u32()?;
    let dtype = dtype_from_id(dtype).ok_or_else(|| {
        LoadError::unsupported(
            reader.path,
            format!("tensor {name} has storage type {dtype}, which is not supported"),
        )
    })?;
    let offset = reader.u64()?;
    let innermost = shape.last().copied().unwrap_or(1);
    if innermost % dtype.block_size() != 0 {
        return Err(reader.broken(format!(
            "rows of tensor {name} have {innermost} values, not a multiple of {}",
            dtype.block_size()
        )));
    }
    if offset % alignment != 0 || offset > reader.file_bytes {
        return Err(reader.broken(format!("tensor {name} has the impossible offset {offset}")));
    }
    let size_bytes = elements / dtype.block_size() as u64 * dtype.type_size() as u64;
    Ok((
        name,
        TensorEntry {
            dtype,
            shape,
            offset,
            size_bytes,
        },
    ))
}

fn dtype_from_id(id: u32) -> Option<GgmlDType> {
    Some(match id {
        0 => GgmlDType::F32,
        1 => GgmlDType::F16,
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        10 => GgmlDType::Q2K,
        11 => GgmlDType::Q3K,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        30 => GgmlDType::BF16,
        _ => return None,
    })
}

/// The name that users know a storage type by.
pub(crate) fn dtype_name(dtype: GgmlDType) -> &'static str {
    match dtype {
        GgmlDType::F32 => "F32",
        GgmlDType::F16 => "F16",
        GgmlDType::BF16 => "BF16",
        GgmlDType::Q4_0 => "Q4_0",
        GgmlDType::Q4_1 => "Q4_1",
        GgmlDType::Q5_0 => "Q5_0",
        GgmlDType::Q5_1 => "Q5_1",
        GgmlDType::Q8_0 => "Q8_0",
        GgmlDType::Q8_1 => "Q8_1",
        GgmlDType::Q2K => "Q2_K",
        GgmlDType::Q3K => "Q3_K",
        GgmlDType::Q4K => "Q4_K",
        GgmlDType::Q5K => "Q5_K",
        GgmlDType::Q6K => "Q6_K",
        GgmlDType::Q8K => "Q8_K",
    }
}

/// Reads little-endian values and knows where it is, for messages and limits.
struct Reader<'a, R> {
    source: R,
    position: u64,
    file_bytes: u64,
    path: &'a Path,
}

impl<R: Read> Reader<'_, R> {
    fn broken(&self, message: impl std::fmt::Display) -> LoadError {
        LoadError::broken(self.path, format!("{message} (at byte {})", self.position))
    }

    fn check_magic(&mut self) -> Result<(), LoadError> {
        let magic: [u8; 4] = self.bytes()?;
        if &magic != b"GGUF" {
            return Err(LoadError::broken(
                self.path,
                "not a GGUF file: it does not begin with `GGUF`",
            ));
        }
        match self.u32()? {
            2 | 3 => Ok(()),
            version => Err(LoadError::unsupported(
                self.path,
                format!(
                    "GGUF version {version} is not supported, only 2 and 3 in little-endian order"
                ),
            )),
        }
    }

    fn remaining(&self) -> u64 {
        self.file_bytes
            .min(MAX_HEADER_BYTES)
            .saturating_sub(self.position)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], LoadError> {
        let mut buffer = [0; N];
        self.fill(&mut buffer)?;
        Ok(buffer)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), LoadError> {
        self.source
            .read_exact(buffer)
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::UnexpectedEof => {
                    self.broken("the file is truncated inside its header")
                }
                _ => LoadError::io(self.path, &error),
            })?;
        self.position += buffer.len() as u64;
        Ok(())
    }

    fn u32(&mut self) -> Result<u32, LoadError> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64, LoadError> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn count(&mut self, what: &str, limit: u64) -> Result<u64, LoadError> {
        let count = self.u64()?;
        if count > limit {
            let message = format!("the {what} is {count}, more than the {limit} that are accepted");
            return Err(LoadError::new(self.path, LoadErrorKind::TooLarge, message));
        }
        Ok(count)
    }

    fn text(&mut self, what: &str, limit: u64) -> Result<String, LoadError> {
        let length = self.u64()?;
        if length > limit.min(self.remaining()) {
            return Err(self.broken(format!("a {what} claims {length} bytes")));
        }
        let mut buffer = vec![0; length as usize];
        self.fill(&mut buffer)?;
        String::from_utf8(buffer).map_err(|_| self.broken(format!("a {what} is not UTF-8")))
    }

    fn value(&mut self, kind: u32, key: &str) -> Result<Value, LoadError> {
        Ok(match kind {
            8 => Value::Text(self.text(key, MAX_HEADER_BYTES)?),
            9 => self.array(key)?,
            7 => Value::Bool(self.bytes::<1>()?[0] != 0),
            6 | 12 => Value::Float(self.float(kind)?),
            _ => Value::Int(self.int(kind, key)?),
        })
    }

    fn int(&mut self, kind: u32, key: &str) -> Result<i64, LoadError> {
        Ok(match kind {
            0 | 7 => i64::from(self.bytes::<1>()?[0]),
            1 => i64::from(self.bytes::<1>()?[0] as i8),
            2 => i64::from(u16::from_le_bytes(self.bytes()?)),
            3 => i64::from(i16::from_le_bytes(self.bytes()?)),
            4 => i64::from(self.u32()?),
            5 => i64::from(self.u32()? as i32),
            10 => i64::try_from(self.u64()?)
                .map_err(|_| self.broken(format!("{key} is too large")))?,
            11 => self.u64()? as i64,
            _ => return Err(self.broken(format!("{key} has the unknown value type {kind}"))),
        })
    }

    fn float(&mut self, kind: u32) -> Result<f64, LoadError> {
        Ok(match kind {
            6 => f64::from(f32::from_le_bytes(self.bytes()?)),
            _ => f64::from_le_bytes(self.bytes()?),
        })
    }

    fn array(&mut self, key: &str) -> Result<Value, LoadError> {
        let kind = self.u32()?;
        let length = self.u64()?;
        let least_bytes = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            _ => return Err(self.broken(format!("{key} is an array of the unknown type {kind}"))),
        };
        if length
            .checked_mul(least_bytes)
            .is_none_or(|bytes| bytes > self.remaining())
        {
            return Err(self.broken(format!("{key} claims {length} entries")));
        }
        Ok(match kind {
            8 => Value::Texts(
                (0..length)
                    .map(|_| self.text(key, MAX_HEADER_BYTES))
                    .collect::<Result<_, _>>()?,
            ),
            6 | 12 => Value::Floats(
                (0..length)
                    .map(|_| self.float(kind))
                    .collect::<Result<_, _>>()?,
            ),
            _ => Value::Ints(
                (0..length)
                    .map(|_| self.int(kind, key))
                    .collect::<Result<_, _>>()?,
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A header with one value of each common type and one tensor.
    fn sample() -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        let text = |out: &mut Vec<u8>, s: &str| {
            out.extend((s.len() as u64).to_le_bytes());
            out.extend(s.as_bytes());
        };
        out.extend(3u32.to_le_bytes());
        out.extend(1u64.to_le_bytes());
        out.extend(3u64.to_le_bytes());
        text(&mut out, "general.architecture");
        out.extend(8u32.to_le_bytes());
        text(&mut out, "llama");
        text(&mut out, "tokenizer.ggml.tokens");
        out.extend(9u32.to_le_bytes());
        out.extend(8u32.to_le_bytes());
        out.extend(2u64.to_le_bytes());
        text(&mut out, "a");
        text(&mut out, "b");
        text(&mut out, "llama.block_count");
        out.extend(4u32.to_le_bytes());
        out.extend(1u32.to_le_bytes());
        text(&mut out, "x.weight");
        out.extend(2u32.to_le_bytes());
        out.extend(32u64.to_le_bytes());
        out.extend(2u64.to_le_bytes());
        out.extend(3u32.to_le_bytes());
        out.extend(0u64.to_le_bytes());
        out.resize(out.len().next_multiple_of(32), 0);
        out.resize(out.len() + 40, 7);
        out
    }

    fn read(bytes: &[u8]) -> Result<Gguf, LoadError> {
        Gguf::read(bytes, bytes.len() as u64, Path::new("sample.gguf"))
    }

    #[test]
    fn reads_a_sound_header() {
        let gguf = read(&sample()).unwrap();
        assert_eq!(gguf.text("general.architecture"), Some("llama"));
        assert_eq!(gguf.int("llama.block_count"), Some(1));
        assert_eq!(gguf.texts("tokenizer.ggml.tokens").unwrap().len(), 2);
        let tensor = &gguf.tensors["x.weight"];
        assert_eq!(
            (tensor.shape.as_slice(), tensor.size_bytes),
            ([2, 32].as_slice(), 40)
        );
    }

    #[test]
    fn every_truncation_is_an_error() {
        let whole = sample();
        for length in 0..whole.len() {
            let error = read(&whole[..length]).expect_err("a truncated file was accepted");
            assert!(!error.message.is_empty());
        }
    }

    #[test]
    fn wrong_magic_and_version_are_named() {
        let mut bytes = sample();
        bytes[0] = b'X';
        assert!(
            read(&bytes)
                .unwrap_err()
                .message
                .contains("not a GGUF file")
        );
        let mut bytes = sample();
        bytes[4] = 9;
        let error = read(&bytes).unwrap_err();
        assert_eq!(error.kind, LoadErrorKind::Unsupported);
        assert!(error.message.contains("version 9"), "{}", error.message);
    }

    proptest! {
        #[test]
        fn mutated_headers_never_panic(edits in prop::collection::vec((0usize..400, any::<u8>()), 1..12), cut in 0usize..400) {
            let mut bytes = sample();
            for (at, value) in edits {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            bytes.truncate(bytes.len() - cut.min(bytes.len()) / 4);
            let _ = read(&bytes);
        }

        #[test]
        fn random_bytes_after_the_magic_never_panic(tail in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = b"GGUF\x03\0\0\0".to_vec();
            bytes.extend(tail);
            let _ = read(&bytes);
        }
    }
}
