//! Reads a dictionary that MeCab has compiled (`sys.dic`, `unk.dic`, `matrix.bin`, `char.bin`) and
//! gives back the text files that it was made of. PyPI's `ipadic` carries it in this form and in no
//! other, and a package registry can be reached from everywhere; Debian's text form cannot.
//!
//! All offsets come from the file and none is trusted.

use std::fmt::Write as _;

use super::japanese::DictionaryError;

/// The four files of a compiled MeCab dictionary.
#[derive(Clone, Copy, Debug)]
pub struct MecabFiles<'a> {
    /// `sys.dic`: the words.
    pub system: &'a [u8],
    /// `unk.dic`: what unknown words of each character category may be.
    pub unknown: &'a [u8],
    /// `matrix.bin`: what it costs that one word follows another.
    pub matrix: &'a [u8],
    /// `char.bin`: the category of each character.
    pub characters: &'a [u8],
}

/// The four text files that a dictionary is compiled from.
pub(super) struct TextFiles {
    pub(super) lexicon: String,
    pub(super) matrix: String,
    pub(super) characters: String,
    pub(super) unknown: String,
    pub(super) entries: usize,
}

/// Undoes MeCab's compilation. Of each word's features only the part of speech and the base form
/// are kept: the rest would double the memory and nothing here reads it.
pub(super) fn decompile(files: MecabFiles<'_>) -> Result<TextFiles, DictionaryError> {
    let system = words(files.system, "sys.dic")?;
    let unknown = words(files.unknown, "unk.dic")?;
    Ok(TextFiles {
        entries: system.len(),
        lexicon: lexicon_text(&system),
        unknown: lexicon_text(&unknown),
        matrix: matrix_text(files.matrix)?,
        characters: characters_text(files.characters)?,
    })
}

fn broken(file: &str, what: &str) -> DictionaryError {
    DictionaryError(format!("{file} is not a compiled MeCab dictionary: {what}"))
}

/// Little-endian numbers at an offset, refusing to read past the end.
struct Reader<'a> {
    bytes: &'a [u8],
    file: &'a str,
}

impl<'a> Reader<'a> {
    fn take(&self, at: usize, length: usize) -> Result<&'a [u8], DictionaryError> {
        at.checked_add(length)
            .and_then(|end| self.bytes.get(at..end))
            .ok_or_else(|| broken(self.file, "it ends too early"))
    }

    fn u32(&self, at: usize) -> Result<u32, DictionaryError> {
        let bytes = self.take(at, 4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn u16(&self, at: usize) -> Result<u16, DictionaryError> {
        let bytes = self.take(at, 2)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    fn size(&self, at: usize) -> Result<usize, DictionaryError> {
        Ok(self.u32(at)? as usize)
    }

    fn name(&self, at: usize) -> Result<&'a str, DictionaryError> {
        let field = self.take(at, 32)?;
        let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
        std::str::from_utf8(&field[..end]).map_err(|_| broken(self.file, "a name is not text"))
    }
}

struct Word {
    surface: String,
    left: u16,
    right: u16,
    cost: i16,
    feature: String,
}

/// Bytes before the trie: ten numbers and the name of the character set.
const HEADER: usize = 10 * 4 + 32;
const TOKEN: usize = 16;
/// What a file's size is mixed with to make its first number.
const MAGIC: u32 = 0xef71_8f77;

fn words(bytes: &[u8], file: &str) -> Result<Vec<Word>, DictionaryError> {
    let reader = Reader { bytes, file };
    if (reader.u32(0)? ^ MAGIC) as usize != bytes.len() {
        return Err(broken(file, "its size is not what it says"));
    }
    if reader.u32(4)? != 102 {
        return Err(broken(file, "another version"));
    }
    let charset = reader.name(40)?;
    if !charset.to_ascii_lowercase().starts_with("utf") {
        return Err(broken(
            file,
            &format!("its characters are {charset}, not UTF-8"),
        ));
    }
    let trie_size = reader.size(24)?;
    let tokens_size = reader.size(28)?;
    let features_size = reader.size(32)?;
    let trie = reader.take(HEADER, trie_size)?;
    let tokens = reader.take(HEADER + trie_size, tokens_size)?;
    let features = reader.take(HEADER + trie_size + tokens_size, features_size)?;
    let tokens = Reader {
        bytes: tokens,
        file,
    };
    let mut found = Vec::with_capacity(tokens_size / TOKEN);
    for (surface, value) in trie_entries(trie, file)? {
        let surface = String::from_utf8(surface).map_err(|_| broken(file, "a word is not text"))?;
        let (first, count) = ((value >> 8) as usize, (value & 0xff) as usize);
        for index in first..first + count {
            let at = index * TOKEN;
            let feature = features
                .get(tokens.size(at + 8)?..)
                .ok_or_else(|| broken(file, "a feature lies outside"))?;
            let end = feature
                .iter()
                .position(|b| *b == 0)
                .unwrap_or(feature.len());
            found.push(Word {
                surface: surface.clone(),
                left: tokens.u16(at)?,
                right: tokens.u16(at + 2)?,
                cost: tokens.u16(at + 6)?.cast_signed(),
                feature: short_feature(&String::from_utf8_lossy(&feature[..end])),
            });
        }
    }
    Ok(found)
}

/// Walks a double array: from a state `b`, the byte `c` leads to `b + c + 1`, if that place says that
/// it belongs to `b`. Looking the children up by their parent makes this one pass.
fn trie_entries(trie: &[u8], file: &str) -> Result<Vec<(Vec<u8>, u32)>, DictionaryError> {
    let reader = Reader { bytes: trie, file };
    let count = trie.len() / 8;
    let mut children: Vec<(u32, u32)> = Vec::with_capacity(count);
    for place in 0..count {
        children.push((reader.u32(place * 8 + 4)?, place as u32));
    }
    children.sort_unstable();
    let mut found = Vec::new();
    let mut open = vec![(reader.u32(0)?, Vec::new())];
    let mut steps = 0;
    while let Some((state, key)) = open.pop() {
        steps += 1;
        if steps > count || key.len() > 1024 {
            return Err(broken(file, "its words run in a circle"));
        }
        let from = children.partition_point(|(parent, _)| *parent < state);
        for &(_, place) in children[from..]
            .iter()
            .take_while(|(parent, _)| *parent == state)
        {
            let base = reader.u32(place as usize * 8)?;
            match place.checked_sub(state) {
                Some(0) if base.cast_signed() < 0 => {
                    found.push((key.clone(), (-(i64::from(base.cast_signed())) - 1) as u32));
                }
                Some(step @ 1..=256) => {
                    let mut longer = key.clone();
                    longer.push((step - 1) as u8);
                    open.push((base, longer));
                }
                _ => {}
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Part of speech and base form, which are the first and the seventh of IPADIC's fields.
pub(super) fn short_feature(feature: &str) -> String {
    let mut fields = feature.split(',');
    let part = fields.next().unwrap_or("*");
    let base = fields.nth(5).unwrap_or("*");
    format!("{part},{base}")
}

fn lexicon_text(words: &[Word]) -> String {
    let mut text = String::with_capacity(words.len() * 48);
    for word in words {
        let surface = word.surface.replace('"', "\"\"");
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "\"{surface}\",{},{},{},{}",
            word.left, word.right, word.cost, word.feature
        );
    }
    text
}

fn matrix_text(bytes: &[u8]) -> Result<String, DictionaryError> {
    let reader = Reader {
        bytes,
        file: "matrix.bin",
    };
    let (rows, columns) = (usize::from(reader.u16(0)?), usize::from(reader.u16(2)?));
    let costs = reader.take(4, rows * columns * 2)?;
    let mut text = format!("{rows} {columns}\n");
    text.reserve(rows * columns * 14);
    for (index, cost) in costs.chunks_exact(2).enumerate() {
        let cost = i16::from_le_bytes([cost[0], cost[1]]);
        let _ = writeln!(text, "{} {} {cost}", index % rows, index / rows);
    }
    Ok(text)
}

/// One line per category, then one per run of characters that are alike.
fn characters_text(bytes: &[u8]) -> Result<String, DictionaryError> {
    let reader = Reader {
        bytes,
        file: "char.bin",
    };
    let count = reader.size(0)?;
    if !(1..=18).contains(&count) {
        return Err(broken("char.bin", "an impossible number of categories"));
    }
    let names = (0..count)
        .map(|index| reader.name(4 + index * 32))
        .collect::<Result<Vec<_>, _>>()?;
    let table = 4 + count * 32;
    let infos = (0..0xffff)
        .map(|c| Ok(Info(reader.u32(table + c * 4)?)))
        .collect::<Result<Vec<_>, DictionaryError>>()?;
    let mut text = String::new();
    for (index, name) in names.iter().enumerate() {
        // How a category treats unknown words is written at each of its characters. One without
        // characters treats nothing.
        let info = infos
            .iter()
            .find(|info| info.category() == index)
            .copied()
            .unwrap_or(Info(0));
        let _ = writeln!(
            text,
            "{name} {} {} {}",
            u8::from(info.invoke()),
            u8::from(info.group()),
            info.length()
        );
    }
    let mut from = 0;
    while from < infos.len() {
        let info = infos[from];
        let to = (from..infos.len())
            .take_while(|c| infos[*c] == info)
            .last()
            .unwrap_or(from);
        let own = names
            .get(info.category())
            .ok_or_else(|| broken("char.bin", "an unknown category"))?;
        let _ = write!(text, "0x{from:04X}..0x{to:04X} {own}");
        for (index, name) in names.iter().enumerate() {
            if index != info.category() && info.is_in(index) {
                let _ = write!(text, " {name}");
            }
        }
        text.push('\n');
        from = to + 1;
    }
    Ok(text)
}

/// What `char.bin` says about one character: 18 bits of categories, 8 bits of the main one, 4 bits
/// of length, then whether to group and whether to invoke.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Info(u32);

impl Info {
    fn is_in(self, category: usize) -> bool {
        self.0 >> category & 1 == 1
    }
    fn category(self) -> usize {
        (self.0 >> 18 & 0xff) as usize
    }
    fn length(self) -> u32 {
        self.0 >> 26 & 0xf
    }
    fn group(self) -> bool {
        self.0 >> 30 & 1 == 1
    }
    fn invoke(self) -> bool {
        self.0 >> 31 == 1
    }
}
