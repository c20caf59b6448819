//! Tensors on disk, by name: from one GGUF file or from safetensors shards.
//!
//! A tensor is read, converted and dropped one at a time, so loading needs the
//! memory of the finished model and of its largest tensor, not of two models.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use candle_core::Device;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use half::{bf16, f16};
use serde::Deserialize;

use crate::chat::Precision;
use crate::error::{LoadError, LoadErrorKind};
use crate::gguf::{Gguf, TensorEntry, dtype_name};
use crate::linear::{DenseLinear, Linear, QuantLinear, QuantMatrix};

const MAX_SAFETENSORS_HEADER: u64 = 25 << 20;

/// Open weight files and the tensors in them.
#[derive(Debug)]
pub(crate) struct Weights {
    tensors: HashMap<String, Located>,
    files: Vec<Mutex<File>>,
    /// For messages: the file or directory the user named.
    path: PathBuf,
}

/// A tensor and where its bytes are.
#[derive(Debug, Clone)]
struct Located {
    file: usize,
    offset: u64,
    entry: TensorEntry,
}

impl Weights {
    /// Opens a GGUF file.
    pub(crate) fn open_gguf(path: &Path) -> Result<(Self, Gguf), LoadError> {
        let file = File::open(path).map_err(|error| LoadError::io(path, &error))?;
        let file_bytes = file
            .metadata()
            .map_err(|error| LoadError::io(path, &error))?
            .len();
        let gguf = Gguf::read(BufReader::new(&file), file_bytes, path)?;
        let tensors = gguf
            .tensors
            .iter()
            .map(|(name, entry)| {
                let offset = gguf.data_offset + entry.offset;
                (
                    name.clone(),
                    Located {
                        file: 0,
                        offset,
                        entry: entry.clone(),
                    },
                )
            })
            .collect();
        Ok((
            Self {
                tensors,
                files: vec![Mutex::new(file)],
                path: path.to_owned(),
            },
            gguf,
        ))
    }

    /// Opens the safetensors files of a directory: the one file, or the shards of its index.
    pub(crate) fn open_safetensors(directory: &Path) -> Result<Self, LoadError> {
        let mut weights = Self {
            tensors: HashMap::new(),
            files: Vec::new(),
            path: directory.to_owned(),
        };
        for name in shard_names(directory)? {
            weights.add_shard(&directory.join(name))?;
        }
        Ok(weights)
    }

    fn add_shard(&mut self, path: &Path) -> Result<(), LoadError> {
        let mut file = File::open(path).map_err(|error| LoadError::io(path, &error))?;
        let file_bytes = file
            .metadata()
            .map_err(|error| LoadError::io(path, &error))?
            .len();
        let (header, data_offset) = read_safetensors_header(&mut file, file_bytes, path)?;
        for (name, tensor) in header {
            let entry = tensor.entry(&name, path)?;
            let located = Located {
                file: self.files.len(),
                offset: data_offset + entry.offset,
                entry,
            };
            if self.tensors.insert(name.clone(), located).is_some() {
                return Err(LoadError::broken(
                    path,
                    format!("tensor {name} is in two files"),
                ));
            }
        }
        self.files.push(Mutex::new(file));
        Ok(())
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// How many values all tensors hold.
    pub(crate) fn parameters(&self) -> u64 {
        self.tensors
            .values()
            .map(|t| t.entry.shape.iter().product::<usize>() as u64)
            .sum()
    }

    /// Bytes of all tensors on disk.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.tensors.values().map(|t| t.entry.size_bytes).sum()
    }

    /// The storage type that holds the most bytes in matrices.
    pub(crate) fn main_dtype(&self) -> &'static str {
        let mut bytes: HashMap<&'static str, u64> = HashMap::new();
        for tensor in self.tensors.values() {
            *bytes.entry(dtype_name(tensor.entry.dtype)).or_default() += tensor.entry.size_bytes;
        }
        bytes
            .into_iter()
            .max_by_key(|(name, bytes)| (*bytes, *name))
            .map_or("none", |(name, _)| name)
    }

    /// A tensor as floats, which must have this shape.
    pub(crate) fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let located = self.locate(name, shape)?;
        let bytes = self.read(name, located)?;
        to_floats(
            located.entry.dtype,
            &bytes,
            located.entry.shape.iter().product(),
        )
        .map_err(|error| LoadError::broken(&self.path, format!("tensor {name}: {error}")))
    }

    /// The same, if the file has such a tensor.
    pub(crate) fn optional_floats(
        &self,
        name: &str,
        shape: &[usize],
    ) -> Result<Option<Vec<f32>>, LoadError> {
        self.contains(name)
            .then(|| self.floats(name, shape))
            .transpose()
    }

    /// A projection of this shape, in the precision asked for. Widths that do not divide into
    /// blocks stay floats.
    pub(crate) fn linear(
        &self,
        name: &str,
        out_features: usize,
        in_features: usize,
        precision: Precision,
    ) -> Result<Box<dyn Linear>, LoadError> {
        let shape = [out_features, in_features];
        if precision == Precision::Quantised {
            let located = self.locate(name, &shape)?;
            let bytes = self.read(name, located)?;
            if let Some(matrix) =
                QuantMatrix::from_blocks(located.entry.dtype, &bytes, out_features, in_features)
            {
                return Ok(Box::new(QuantLinear::new(matrix)));
            }
        }
        let values = self.floats(name, &shape)?;
        if precision == Precision::Quantised
            && let Some(matrix) = QuantMatrix::from_floats(&values, out_features, in_features)
        {
            return Ok(Box::new(QuantLinear::new(matrix)));
        }
        let dense = DenseLinear::new(values, out_features, in_features)
            .map_err(|error| LoadError::broken(&self.path, format!("tensor {name}: {error}")))?;
        Ok(Box::new(dense))
    }

    fn locate(&self, name: &str, shape: &[usize]) -> Result<&Located, LoadError> {
        let located = self
            .tensors
            .get(name)
            .ok_or_else(|| LoadError::broken(&self.path, format!("tensor {name} is missing")))?;
        if located.entry.shape != shape {
            return Err(LoadError::broken(
                &self.path,
                format!(
                    "tensor {name} has shape {:?}, expected {shape:?}",
                    located.entry.shape
                ),
            ));
        }
        Ok(located)
    }

    fn read(&self, name: &str, located: &Located) -> Result<Vec<u8>, LoadError> {
        let mut bytes = vec![0; located.entry.size_bytes as usize];
        // A poisoned lock means that another reader panicked; the file is as good as before.
        let mut file = self.files[located.file]
            .lock()
            .unwrap_or_else(|e| e.into_inner());
        file.seek(SeekFrom::Start(located.offset))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|error| {
                LoadError::broken(&self.path, format!("read tensor {name}: {error}"))
            })?;
        Ok(bytes)
    }
}

fn to_floats(dtype: GgmlDType, bytes: &[u8], count: usize) -> Result<Vec<f32>, candle_core::Error> {
    Ok(match dtype {
        GgmlDType::F32 => bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect(),
        GgmlDType::F16 => bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|b| f16::from_le_bytes(*b).to_f32())
            .collect(),
        GgmlDType::BF16 => bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|b| bf16::from_le_bytes(*b).to_f32())
            .collect(),
        _ => {
            // Blocks begin with 16-bit values and candle checks their alignment.
            let mut aligned = vec![0u64; bytes.len().div_ceil(8)];
            for (word, chunk) in aligned.iter_mut().zip(bytes.chunks(8)) {
                let mut eight = [0; 8];
                eight[..chunk.len()].copy_from_slice(chunk);
                *word = u64::from_ne_bytes(eight);
            }
            let aligned = words_as_bytes(&aligned, bytes.len());
            let storage = QStorage::from_data(aligned.into(), &Device::Cpu, dtype)?;
            QTensor::new(storage, count)?
                .dequantize(&Device::Cpu)?
                .to_vec1()?
        }
    })
}

#[expect(unsafe_code, reason = "a view of aligned memory as bytes")]
fn words_as_bytes(words: &[u64], length: usize) -> &[u8] {
    assert!(length <= words.len() * 8, "view longer than its memory");
    // SAFETY: inside the allocation, checked above; any byte is a valid u8.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), length) }
}

/// One tensor of a safetensors header.
#[derive(Debug, Deserialize)]
struct SafetensorsEntry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

impl SafetensorsEntry {
    fn entry(&self, name: &str, path: &Path) -> Result<TensorEntry, LoadError> {
        let dtype = match self.dtype.as_str() {
            "F32" => GgmlDType::F32,
            "F16" => GgmlDType::F16,
            "BF16" => GgmlDType::BF16,
            // Position tables of old BERT exports; never read, but part of the file.
            "I64" | "F64" => return Ok(self.opaque()),
            other => {
                return Err(LoadError::unsupported(
                    path,
                    format!("tensor {name} has the storage type {other}, which is not supported"),
                ));
            }
        };
        let elements = self
            .shape
            .iter()
            .try_fold(1u64, |n, d| n.checked_mul(*d as u64));
        let size_bytes = self.data_offsets.1 - self.data_offsets.0;
        if elements.and_then(|n| n.checked_mul(dtype.type_size() as u64)) != Some(size_bytes) {
            return Err(LoadError::broken(
                path,
                format!("tensor {name}: shape and byte count disagree"),
            ));
        }
        Ok(TensorEntry {
            dtype,
            shape: self.shape.clone(),
            offset: self.data_offsets.0,
            size_bytes,
        })
    }

    /// An entry whose shape matches no request, so that it can never be read as floats.
    fn opaque(&self) -> TensorEntry {
        TensorEntry {
            dtype: GgmlDType::F32,
            shape: vec![0],
            offset: self.data_offsets.0,
            size_bytes: 0,
        }
    }
}

type Header = Vec<(String, SafetensorsEntry)>;

/// Reads and checks a header: tensors must follow each other without gap or overlap and fill
/// the file exactly.
fn read_safetensors_header(
    file: &mut impl Read,
    file_bytes: u64,
    path: &Path,
) -> Result<(Header, u64), LoadError> {
    let truncated = || LoadError::broken(path, "the file is truncated inside its header");
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| truncated())?;
    let length = u64::from_le_bytes(length);
    if length > MAX_SAFETENSORS_HEADER {
        let message = format!(
            "the safetensors header claims {length} bytes, more than {MAX_SAFETENSORS_HEADER}"
        );
        return Err(LoadError::new(path, LoadErrorKind::TooLarge, message));
    }
    if length + 8 > file_bytes {
        return Err(truncated());
    }
    let mut text = vec![0; length as usize];
    file.read_exact(&mut text).map_err(|_| truncated())?;
    let json: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&text)
        .map_err(|error| LoadError::broken(path, format!("safetensors header: {error}")))?;
    let mut header = Vec::new();
    for (name, value) in json.into_iter().filter(|(name, _)| name != "__metadata__") {
        let entry: SafetensorsEntry = serde_json::from_value(value).map_err(|error| {
            LoadError::broken(path, format!("safetensors header, tensor {name}: {error}"))
        })?;
        header.push((name, entry));
    }
    header.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut end = 0;
    for (name, entry) in &header {
        if entry.data_offsets.0 != end || entry.data_offsets.1 < end {
            return Err(LoadError::broken(
                path,
                format!("tensor {name} does not begin where the one before it ends"),
            ));
        }
        end = entry.data_offsets.1;
    }
    if end != file_bytes - 8 - length {
        return Err(LoadError::broken(
            path,
            format!(
                "the header describes {end} bytes of tensors, the file holds {}",
                file_bytes - 8 - length
            ),
        ));
    }
    Ok((header, 8 + length))
}

/// The weight files of a directory.
fn shard_names(directory: &Path) -> Result<Vec<String>, LoadError> {
    let index = directory.join("model.safetensors.index.json");
    if !index.exists() {
        return Ok(vec!["model.safetensors".to_owned()]);
    }
    let json = read_json(&index)?;
    let map = json["weight_map"]
        .as_object()
        .ok_or_else(|| LoadError::broken(&index, "weight_map is missing"))?;
    let mut names: Vec<String> = Vec::new();
    for value in map.values() {
        let name = value.as_str().unwrap_or_default();
        // Shards lie beside their index; a path could point anywhere on the machine.
        if name.is_empty() || name.contains(['/', '\\']) || !name.ends_with(".safetensors") {
            return Err(LoadError::broken(
                &index,
                format!("weight_map names the file {value}"),
            ));
        }
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Reads a JSON file of a model directory, at most 64 MiB of it.
pub(crate) fn read_json(path: &Path) -> Result<serde_json::Value, LoadError> {
    let file = File::open(path).map_err(|error| LoadError::io(path, &error))?;
    let mut text = Vec::new();
    file.take(64 << 20)
        .read_to_end(&mut text)
        .map_err(|error| LoadError::io(path, &error))?;
    serde_json::from_slice(&text).map_err(|error| LoadError::broken(path, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Vec<u8> {
        let header = br#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F16","shape":[1,2],"data_offsets":[8,12]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        bytes.extend([0; 12]);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<(), LoadError> {
        let path = Path::new("sample.safetensors");
        let (header, _) = read_safetensors_header(&mut &bytes[..], bytes.len() as u64, path)?;
        header
            .iter()
            .try_for_each(|(name, entry)| entry.entry(name, path).map(drop))
    }

    #[test]
    fn every_truncation_is_an_error() {
        let whole = sample();
        read(&whole).unwrap();
        for length in 0..whole.len() {
            assert!(
                read(&whole[..length]).is_err(),
                "{length} bytes were accepted"
            );
        }
    }

    proptest! {
        #[test]
        fn mutated_headers_never_panic(edits in prop::collection::vec((0usize..140, any::<u8>()), 1..6)) {
            let mut bytes = sample();
            for (at, value) in edits {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            let _ = read(&bytes);
        }
    }
}
