//! Where data and the oracle are.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use eval::{Japanese, Resources, Vader};

/// A file that `scripts/test-models` fetched. A test that needs one fails without it, because a
/// skipped proof looks like a passed one.
pub(crate) fn test_data(name: &str) -> PathBuf {
    let root = match std::env::var_os("MEGURI_TEST_MODELS") {
        Some(root) => PathBuf::from(root),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-models"),
    };
    let path = root.join(name);
    assert!(
        path.exists(),
        "{} is missing: `make test` fetches it",
        path.display()
    );
    path
}

/// The dictionary and the lexicon.
pub(crate) fn resources() -> &'static Resources {
    static LOADED: OnceLock<Resources> = OnceLock::new();
    LOADED.get_or_init(|| {
        let packed = std::fs::read(test_data("ipadic/ipadic.zst")).expect("read the dictionary");
        let text = |name: &str| std::fs::read_to_string(test_data(name)).expect("read the lexicon");
        let vader = Vader::read(
            &text("vader/vader_lexicon.txt"),
            &text("vader/emoji_utf8_lexicon.txt"),
        );
        Resources {
            japanese: Some(Arc::new(Japanese::unpack(&packed).expect("a dictionary"))),
            vader: Some(Arc::new(vader.expect("a lexicon"))),
        }
    })
}

/// The Python programs, where somebody installed them (`scripts/eval-oracle`). Where
/// `MEGURI_EVAL_ORACLE` asks for them they must be there.
pub(crate) fn oracle() -> Option<PathBuf> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/eval-oracle/bin/python");
    if python.exists() {
        return Some(python);
    }
    assert!(
        std::env::var_os("MEGURI_EVAL_ORACLE").is_none(),
        "{} is missing: scripts/eval-oracle makes it",
        python.display()
    );
    None
}

/// Numbers that look random and are the same everywhere.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ (self.0 >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 32)
    }

    /// Below a bound.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}
