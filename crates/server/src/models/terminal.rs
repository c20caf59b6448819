//! A pull's progress on a terminal: bar, speed, time left. Off a terminal
//! nothing moves and nothing is printed.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::progress::{Progress, Stage};

/// A bar on standard error.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
    shape: Mutex<Shape>,
}

/// Whether the length is known decides how the bar looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    None,
    Bar,
    Spinner,
}

impl Default for Bar {
    fn default() -> Self {
        let bar = ProgressBar::new(0);
        Self {
            bar,
            shape: Mutex::new(Shape::None),
        }
    }
}

impl Bar {
    /// Shows the newest state.
    pub fn show(&self, label: &str, progress: &Progress) {
        self.reshape(if progress.total_bytes.is_some() {
            Shape::Bar
        } else {
            Shape::Spinner
        });
        if let Some(total) = progress.total_bytes {
            self.bar.set_length(total);
        }
        self.bar.set_position(progress.done_bytes);
        let what = match progress.stage {
            Stage::Queued => "waiting",
            Stage::Listing => "asking",
            Stage::Downloading => "fetching",
            Stage::Verifying => "checking",
            Stage::Copying => "copying",
            Stage::Installing => "installing",
        };
        let speed = progress
            .bytes_per_s
            .map(|speed| format!("  {}/s", indicatif::HumanBytes(speed)));
        let left = progress
            .seconds_left
            .filter(|_| progress.stage == Stage::Downloading);
        let left = left.map(|left| {
            format!(
                "  {} left",
                indicatif::HumanDuration(Duration::from_secs(left))
            )
        });
        let text = format!("{}{}", speed.unwrap_or_default(), left.unwrap_or_default());
        self.bar
            .set_prefix(base::text::reveal(&format!("{what} {label}")));
        self.bar.set_message(text);
        self.bar.tick();
    }

    fn reshape(&self, wanted: Shape) {
        let mut shape = self.shape.lock().unwrap_or_else(PoisonError::into_inner);
        if *shape == wanted {
            return;
        }
        *shape = wanted;
        let template = match wanted {
            Shape::Bar => "{prefix} [{bar:28}] {bytes}/{total_bytes}{msg}",
            _ => "{spinner} {prefix} {bytes}{msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style.progress_chars("=> "));
        }
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
