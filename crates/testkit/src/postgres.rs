//! A real PostgreSQL for tests: one server per checkout, one fresh database per test.
//!
//! nextest runs every test in a process of its own, so the server outlives the
//! process that started it: whoever comes first starts it, under a file lock,
//! and a small shell beside it stops it and removes its files when no test
//! process has used it for two minutes. Every user holds a shared lock on a file
//! for as long as its process lives, however that ends; that is how the shell knows.

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

/// Bump when the way the server is set up changes, so that an old one is not reused.
const SETUP: &str = "1";

/// An empty database of the shared server, dropped with this value.
#[derive(Debug)]
pub struct TestDatabase {
    /// `postgres://…`, as `--database-url` takes it.
    pub url: String,
    name: String,
}

impl TestDatabase {
    /// Makes a database, starting the server if needed.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start: a test that silently
    /// skips a database proves nothing.
    #[expect(
        clippy::new_without_default,
        reason = "it starts a server; that should be seen at the call"
    )]
    pub fn new() -> Self {
        match Self::create() {
            Ok(database) => database,
            Err(error) => panic!("no PostgreSQL for this test: {error:#}"),
        }
    }

    fn create() -> Result<Self> {
        let server = Server::shared()?;
        let name = format!("t_{}_{}", std::process::id(), next_number());
        // template0, because nobody can be connected to it, which would make this fail.
        server.sql(&format!("CREATE DATABASE {name} TEMPLATE template0"))?;
        let url = format!("postgres://postgres@127.0.0.1:{}/{name}", server.port);
        Ok(Self { url, name })
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // Best effort: the whole server is thrown away when the tests are over.
        if let Ok(server) = Server::shared() {
            let _ = server.sql(&format!(
                "DROP DATABASE IF EXISTS {} WITH (FORCE)",
                self.name
            ));
        }
    }
}

fn next_number() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

#[derive(Debug)]
struct Server {
    bin: PathBuf,
    port: u16,
    /// Locked shared until this process ends.
    _in_use: File,
}

impl Server {
    /// The server of this process, found or started once.
    fn shared() -> Result<&'static Self> {
        static SERVER: OnceLock<Result<Server, String>> = OnceLock::new();
        let server =
            SERVER.get_or_init(|| Self::find_or_start().map_err(|error| format!("{error:#}")));
        server
            .as_ref()
            .map_err(|error| anyhow::anyhow!(error.clone()))
    }

    fn find_or_start() -> Result<Self> {
        let bin = find_binaries()?;
        let account = Account::for_server()?;
        let home = home_folder(&account);
        make_home(&home, &account).with_context(|| format!("making {}", home.display()))?;
        let starting = lock_file(&home.join("start.lock"))?;
        starting
            .lock()
            .context("waiting for another test process that starts the server")?;
        let in_use = lock_file(&home.join("use.lock"))?;
        in_use.lock_shared().context("marking the server as used")?;
        let port = match running_port(&home, &bin) {
            Some(port) => port,
            None => start(&home, &bin, &account)?,
        };
        Ok(Self {
            bin,
            port,
            _in_use: in_use,
        })
    }

    fn sql(&self, statement: &str) -> Result<()> {
        let mut psql = psql(&self.bin, self.port);
        run(psql.args(["-q", "-c", statement]))
    }
}

fn psql(bin: &Path, port: u16) -> Command {
    let mut psql = Command::new(bin.join("psql"));
    psql.args([
        "-X",
        "-v",
        "ON_ERROR_STOP=1",
        "-h",
        "127.0.0.1",
        "-U",
        "postgres",
        "-d",
        "postgres",
    ]);
    psql.args(["-p", &port.to_string()])
        .env("PGCONNECT_TIMEOUT", "10");
    psql
}

fn find_binaries() -> Result<PathBuf> {
    let mut folders: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|versions| {
            versions
                .flatten()
                .map(|version| version.path().join("bin"))
                .collect()
        })
        .unwrap_or_default();
    folders.sort();
    folders.reverse();
    let path = std::env::var_os("PATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&path));
    let complete = |folder: &PathBuf| {
        ["initdb", "postgres", "psql"]
            .iter()
            .all(|name| folder.join(name).is_file())
    };
    folders.into_iter().find(complete).context(
        "PostgreSQL is not installed: `make test` installs it as root, otherwise install the package postgresql",
    )
}

/// Whom the server runs as. It refuses to run as root.
struct Account {
    uid: u32,
    gid: u32,
    switch: bool,
}

impl Account {
    fn for_server() -> Result<Self> {
        let own = fs::metadata("/proc/self").context("asking who we are")?;
        let (uid, gid) = (
            std::os::unix::fs::MetadataExt::uid(&own),
            std::os::unix::fs::MetadataExt::gid(&own),
        );
        if uid != 0 {
            return Ok(Self {
                uid,
                gid,
                switch: false,
            });
        }
        let accounts = fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
        let find = |wanted: &str| accounts.lines().find_map(|line| ids_of(line, wanted));
        let (uid, gid) = find("postgres")
            .or_else(|| find("nobody"))
            .context("no account postgres or nobody")?;
        Ok(Self {
            uid,
            gid,
            switch: true,
        })
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        if self.switch {
            command.uid(self.uid).gid(self.gid);
        }
        command.stdin(Stdio::null()).current_dir("/");
        command
    }
}

fn ids_of(line: &str, wanted: &str) -> Option<(u32, u32)> {
    let mut fields = line.split(':');
    if fields.next()? != wanted {
        return None;
    }
    Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// In the temporary folder and not under `target/`: as root the server runs as
/// somebody who may not be able to enter the checkout.
fn home_folder(account: &Account) -> PathBuf {
    let checkout = base::Digest::of(env!("CARGO_MANIFEST_DIR").as_bytes()).short();
    std::env::temp_dir().join(format!(
        "meguri-test-postgres-{SETUP}-{}-{checkout}",
        account.uid
    ))
}

fn make_home(home: &Path, account: &Account) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(home) {
        Ok(()) if account.switch => chown(home, Some(account.uid), Some(account.gid)),
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn lock_file(path: &Path) -> Result<File> {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options
        .open(path)
        .with_context(|| format!("opening {}", path.display()))
}

fn running_port(home: &Path, bin: &Path) -> Option<u16> {
    let port = fs::read_to_string(home.join("port"))
        .ok()?
        .trim()
        .parse()
        .ok()?;
    run(psql(bin, port).args(["-q", "-c", "SELECT 1"]))
        .ok()
        .map(|()| port)
}

fn start(home: &Path, bin: &Path, account: &Account) -> Result<u16> {
    let data = home.join("data");
    if data.exists() {
        // Left by a server that was killed; its databases are nobody's.
        fs::remove_dir_all(&data).context("removing the data of a dead server")?;
    }
    let initdb = [
        "--no-sync",
        "--auth=trust",
        "--username=postgres",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
    ];
    run(account
        .command(bin.join("initdb"))
        .args(initdb)
        .arg("--pgdata")
        .arg(&data))?;
    let port = free_port()?;
    run(account
        .command(bin.join("pg_ctl"))
        .args(["start", "--wait", "--timeout=60", "--silent", "--pgdata"])
        .arg(&data)
        .arg("--log")
        .arg(home.join("server.log"))
        .args(["--options", &server_options(home, port)])
        .process_group(0))
    .with_context(|| server_log(home))?;
    fs::write(home.join("port"), port.to_string()).context("noting the server's port")?;
    start_watcher(home, bin, account)?;
    Ok(port)
}

/// Nothing is synced: the data is thrown away. Many connections, because many
/// tests run at once and each has a pool.
fn server_options(home: &Path, port: u16) -> String {
    let settings = [
        "listen_addresses=127.0.0.1",
        &format!("unix_socket_directories={}", home.display()),
        "fsync=off",
        "synchronous_commit=off",
        "full_page_writes=off",
        "max_connections=400",
        "shared_buffers=64MB",
    ];
    settings
        .iter()
        .fold(format!("-p {port}"), |options, setting| {
            format!("{options} -c {setting}")
        })
}

/// Another program could take the port before the server does; then the start
/// fails and says so in the log, which the error carries.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
    Ok(listener.local_addr()?.port())
}

fn server_log(home: &Path) -> String {
    let log = fs::read_to_string(home.join("server.log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    format!(
        "the server's last words: {}",
        lines[lines.len().saturating_sub(8)..].join(" | ")
    )
}

/// Stops the server when the lock on `use.lock` was free twelve times in a row.
/// It takes `start.lock` first, as every new user does, so that nobody can find
/// the server running just before it stops.
const WATCHER: &str = r#"
idle=0
while sleep 10 && kill -0 "$(head -n 1 "$HOME/data/postmaster.pid")"; do
  if flock -n -x "$HOME/use.lock" true; then idle=$((idle + 1)); else idle=0; fi
  if [ "$idle" -ge 12 ]; then
    exec 9>>"$HOME/start.lock"
    if flock -w 5 -x 9 && flock -n -x "$HOME/use.lock" true; then
      "$BIN/pg_ctl" stop --mode=immediate --silent --pgdata "$HOME/data"
      rm -rf "$HOME/data" "$HOME/port"
      exit 0
    fi
    exec 9>&-
    idle=0
  fi
done
"#;

fn start_watcher(home: &Path, bin: &Path, account: &Account) -> Result<()> {
    for lock in ["start.lock", "use.lock", "port"] {
        chown(home.join(lock), Some(account.uid), Some(account.gid))
            .context("handing the lock files over")?;
    }
    let mut watcher = account.command("sh");
    // Its own process group and no pipes of ours: the test runner would wait for them, or kill it with the test.
    watcher
        .args(["-c", WATCHER])
        .env("HOME", home)
        .env("BIN", bin)
        .process_group(0);
    watcher.stdout(Stdio::null()).stderr(Stdio::null());
    watcher.spawn().context("starting the server's watcher")?;
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let program = PathBuf::from(command.get_program());
    // Files and not pipes would be needed for a child that lives on; `pg_ctl --log` gives the server its own.
    let output = command
        .output()
        .with_context(|| format!("running {}", program.display()))?;
    if !output.status.success() {
        bail!(
            "{} failed: {}",
            program.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
