//! `compile_dictionary DICDIR OUT`: a dictionary that MeCab compiled, such as the `dicdir` of PyPI's
//! `ipadic`, as the one file that the tokeniser `ja-mecab` loads. `scripts/test-models` calls it.

use std::path::PathBuf;

use eval::Japanese;
use eval::text::MecabFiles;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(from), Some(to)) = (arguments.next(), arguments.next()) else {
        return Err("two arguments are needed: DICDIR OUT".into());
    };
    let read = |name: &str| std::fs::read(from.join(name));
    let compiled = Japanese::from_mecab(MecabFiles {
        system: &read("sys.dic")?,
        unknown: &read("unk.dic")?,
        matrix: &read("matrix.bin")?,
        characters: &read("char.bin")?,
    })?;
    let part = to.with_extension("part");
    std::fs::write(&part, Japanese::pack(&compiled)?)?;
    std::fs::rename(part, to)?;
    Ok(())
}
