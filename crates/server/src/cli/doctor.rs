//! `meguri doctor`: what would keep a server from working here, and what to do.

use clap::Args;
use serde::Serialize;

use super::{Place, print_json, print_line};
use crate::config::Config;

#[derive(Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    place: Place,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    detail: String,
}

impl Doctor {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut checks = Vec::new();
        match self.place.load(None) {
            Ok(config) => {
                checks.push(Check {
                    name: "configuration",
                    ok: true,
                    detail: "read".to_owned(),
                });
                checks.extend(look(&config).await);
            }
            Err(error) => checks.push(Check {
                name: "configuration",
                ok: false,
                detail: format!("{error:#}"),
            }),
        }
        let bad = checks.iter().filter(|check| !check.ok).count();
        if self.json {
            print_json(&serde_json::json!({"ok": bad == 0, "checks": checks}))?;
        } else {
            for check in &checks {
                print_line(&format!(
                    "{:4} {:14} {}",
                    if check.ok { "ok" } else { "BAD" },
                    check.name,
                    check.detail
                ))?;
            }
        }
        if bad > 0 {
            anyhow::bail!("{bad} of {} checks failed", checks.len())
        } else {
            Ok(())
        }
    }
}

async fn look(config: &Config) -> Vec<Check> {
    let mut checks = Vec::new();
    let probe = config.data_dir.join(".doctor");
    let written =
        std::fs::create_dir_all(&config.data_dir).and_then(|()| std::fs::write(&probe, b"ok"));
    let _ = std::fs::remove_file(&probe);
    checks.push(Check {
        name: "data directory",
        ok: written.is_ok(),
        detail: match &written {
            Ok(()) => format!("{} can be written", config.data_dir.display()),
            Err(error) => format!("{} cannot be written: {error}", config.data_dir.display()),
        },
    });
    match crate::app::open_database(config).await {
        Ok(db) => {
            let revision = db.plan_revision().await;
            let models = crate::models::list_installed(&db).await;
            db.close().await;
            checks.push(Check {
                name: "database",
                ok: revision.is_ok(),
                detail: revision.map_or_else(
                    |error| error.to_string(),
                    |revision| format!("plan revision {revision}"),
                ),
            });
            checks.push(match models {
                Ok(models) if models.is_empty() => Check {
                    name: "local models",
                    ok: true,
                    detail: "none; pull one with: meguri model pull REF".to_owned(),
                },
                Ok(models) => Check {
                    name: "local models",
                    ok: true,
                    detail: models.join(", "),
                },
                Err(error) => Check {
                    name: "local models",
                    ok: false,
                    detail: error.to_string(),
                },
            });
        }
        Err(error) => checks.push(Check {
            name: "database",
            ok: false,
            detail: format!("{error:#}"),
        }),
    }
    let telemetry = config.data_dir.join("telemetry");
    if telemetry.exists() {
        let readable = telemetry::Telemetry::open_reader(&telemetry);
        checks.push(Check {
            name: "telemetry",
            ok: readable.is_ok(),
            detail: readable.map_or_else(
                |error| error.to_string(),
                |_| "segments can be read".to_owned(),
            ),
        });
    }
    let listening = std::net::TcpListener::bind(config.file.listen);
    checks.push(Check {
        name: "address",
        ok: true,
        detail: match listening {
            Ok(_) => format!("{} is free", config.file.listen),
            Err(error) => format!(
                "{} is in use or not ours ({error}): a server may be running",
                config.file.listen
            ),
        },
    });
    checks
}
