//! `compile_dictionary DICDIR OUT`: a dictionary that MeCab compiled, such as the `dicdir` of PyPI's
//! `ipadic`, as the one file that the tokeniser `ja-mecab` loads. `scripts/test-models` calls it.
//! A folder of text files in UTF-8 (`*.csv`, `matrix.def`, `char.def`, `unk.def`) will do as well.

use std::path::{Path, PathBuf};

use eval::Japanese;
use eval::text::MecabFiles;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(from), Some(to)) = (arguments.next(), arguments.next()) else {
        return Err("two arguments are needed: DICDIR OUT".into());
    };
    let compiled = if from.join("matrix.def").exists() {
        from_text(&from)?
    } else {
        let read = |name: &str| std::fs::read(from.join(name));
        Japanese::from_mecab(MecabFiles {
            system: &read("sys.dic")?,
            unknown: &read("unk.dic")?,
            matrix: &read("matrix.bin")?,
            characters: &read("char.bin")?,
        })?
    };
    let part = to.with_extension("part");
    std::fs::write(&part, Japanese::pack(&compiled)?)?;
    std::fs::rename(part, to)?;
    Ok(())
}

fn from_text(from: &Path) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let read = |name: &str| std::fs::read_to_string(from.join(name));
    let mut lists: Vec<PathBuf> = std::fs::read_dir(from)?
        .filter_map(|file| Some(file.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "csv"))
        .collect();
    lists.sort();
    let mut lexicon = String::new();
    for list in lists {
        lexicon.push_str(&std::fs::read_to_string(list)?);
    }
    Ok(Japanese::from_csv(
        &lexicon,
        &read("matrix.def")?,
        &read("char.def")?,
        &read("unk.def")?,
    )?)
}
