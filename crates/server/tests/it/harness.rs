//! The real binary on free loopback ports, a fake provider, and clients that
//! speak HTTP by hand.
//!
//! Nothing here calls into the server: it is a process with a data directory,
//! as people run it. The clients are blocking and send exactly the bytes that a
//! test names, so that a broken request is as easy to write as a good one. Only
//! people and second projects are put into the database directly, because there
//! is no other quick way to them; the stories of signing in and being invited
//! take the long way.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::postgres::TestDatabase;
use testkit::provider::FakeProvider;

/// How long anything may take before the test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The cookie of a session on plain loopback.
pub(crate) const SESSION_COOKIE: &str = "meguri-loopback";

/// An id that nothing has, in the form that ids have.
pub(crate) const NO_ID: &str = "0190a5b0-c3d4-7e8f-9a0b-1c2d3e4f5061";

/// Tests a story on both databases: `on_both_databases!(story)` makes
/// `story::sqlite` and `story::postgres` of `fn story(place: Place)`.
macro_rules! on_both_databases {
    ($($story:ident),+ $(,)?) => {$(
        mod $story {
            use crate::harness::{Database, Place};

            #[test]
            fn sqlite() {
                super::$story(Place::on(Database::Sqlite));
            }

            #[test]
            fn postgres() {
                super::$story(Place::on(Database::Postgres));
            }
        }
    )+};
}
pub(crate) use on_both_databases;

/// Where the metadata is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Database {
    /// A file in the data directory.
    Sqlite,
    /// A database of the shared test server.
    Postgres,
}

/// A fresh data directory and what belongs to it, before a server starts on it.
pub(crate) struct Place {
    dir: tempfile::TempDir,
    database: Option<TestDatabase>,
    /// The provider that is called `fake` after [`Place::add_fake`].
    pub(crate) fake: FakeProvider,
    /// The secret of a key with the role `editor`; empty before [`Place::with_key`].
    pub(crate) key: String,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The JSON that a command printed; it must have ended well.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Place {
    /// SQLite, with the provider `fake` and an editor's key.
    pub(crate) fn new() -> Self {
        Self::on(Database::Sqlite).add_fake().with_key("editor")
    }

    /// Nothing but an empty directory, and an empty database where one is asked for.
    pub(crate) fn on(database: Database) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        let database = (database == Database::Postgres).then(TestDatabase::new);
        Self {
            dir,
            database,
            fake: FakeProvider::start(),
            key: String::new(),
        }
    }

    /// Adds the fake provider as `fake`, as an operator does.
    pub(crate) fn add_fake(self) -> Self {
        let url = self.fake.openai_url();
        self.meguri(&[
            "provider",
            "add",
            "fake",
            "--protocol",
            "openai",
            "--base-url",
            &url,
        ])
        .assert_done();
        self
    }

    /// Makes a key in the project `default`, which servers and clients use from now on.
    pub(crate) fn with_key(mut self, role: &str) -> Self {
        self.key = self.make_key("default", role).1;
        self
    }

    /// The data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// What servers and the test may put beside the data directory.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `--database-url` where it is not the default.
    pub(crate) fn database_url(&self) -> Option<&str> {
        self.database.as_ref().map(|database| database.url.as_str())
    }

    /// Writes `meguri.toml`.
    pub(crate) fn configure(&self, toml: &str) {
        std::fs::write(self.data().join("meguri.toml"), toml).unwrap();
    }

    /// The binary with an environment that holds nothing of this machine's.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meguri"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .current_dir(self.dir.path());
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command on the data directory.
    pub(crate) fn meguri(&self, args: &[&str]) -> Ended {
        self.run(self.command().args(args).args(self.place_args()))
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, command: &mut Command) -> Ended {
        let output = command.output().unwrap();
        Ended {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The flags that say where the data is.
    pub(crate) fn place_args(&self) -> Vec<String> {
        let mut args = vec!["--data-dir".to_owned(), self.data().display().to_string()];
        if let Some(url) = self.database_url() {
            args.extend(["--database-url".to_owned(), url.to_owned()]);
        }
        args
    }

    /// Makes a key with the command line; its id and secret.
    pub(crate) fn make_key(&self, project: &str, role: &str) -> (String, String) {
        let made = self
            .meguri(&[
                "key",
                "create",
                "--project",
                project,
                "--name",
                role,
                "--role",
                role,
                "--json",
            ])
            .json();
        (
            made["id"].as_str().unwrap().to_owned(),
            made["secret"].as_str().unwrap().to_owned(),
        )
    }

    /// Starts a server and waits until it takes calls.
    pub(crate) fn start(&self) -> Live {
        self.start_with(|_| {})
    }

    /// As [`Place::start`], after the command was changed.
    pub(crate) fn start_with(&self, change: impl Fn(&mut Command)) -> Live {
        for _ in 0..5 {
            if let Some(live) = self.try_start(&change) {
                return live;
            }
        }
        panic!("the server does not start: {}", self.log());
    }

    /// `None` when somebody else took the port first.
    fn try_start(&self, change: &impl Fn(&mut Command)) -> Option<Live> {
        let address = free_address();
        let mut command = self.command();
        command
            .args(["serve", "--listen", &address.to_string()])
            .args(self.place_args());
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.beside("server.log"))
            .unwrap();
        command.stdout(Stdio::null()).stderr(log);
        change(&mut command);
        let child = command.spawn().unwrap();
        let mut live = Live {
            child,
            client: Client::new(address, Some(&self.key)),
        };
        let until = Instant::now() + PATIENCE;
        while live
            .call("GET", "/readyz")
            .try_send()
            .is_none_or(|reply| reply.status != 200)
        {
            if live.child.try_wait().unwrap().is_some() {
                assert!(
                    self.log().contains("in use"),
                    "the server ended: {}",
                    self.log()
                );
                return None;
            }
            assert!(
                Instant::now() < until,
                "the server is not ready: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(live)
    }

    /// What every server on this place wrote to stderr so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.beside("server.log")).unwrap_or_default()
    }

    /// The path and query of the newest setup link in the log.
    pub(crate) fn setup_link(&self) -> String {
        let log = self.log();
        let link = log
            .lines()
            .rev()
            .find_map(|line| Some(line.trim().split_once("/setup?token=")?.1.to_owned()));
        format!(
            "/setup?token={}",
            link.unwrap_or_else(|| panic!("no setup link in {log}"))
        )
    }

    /// Runs something on the metadata database.
    pub(crate) fn database<T>(&self, work: impl AsyncFnOnce(&db::Db) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let clock = Arc::new(base::SystemClock);
            let ids = base::Ids::new(clock.clone(), Arc::new(base::SystemRandom));
            let url = match self.database_url() {
                Some(url) => url.parse().unwrap(),
                None => db::DatabaseUrl::sqlite(self.data().join("meguri.db")),
            };
            let db = db::Db::open(&url, ids, clock).await.unwrap();
            let result = work(&db).await;
            db.close().await;
            result
        })
    }

    /// A second project with the environment `dev`. The directory must have been used before.
    pub(crate) fn add_project(&self, name: &str) {
        self.database(async |db| {
            let project: base::ProjectId = db.ids().make();
            let mut tx = db.begin_write().await.unwrap();
            let insert = "INSERT INTO projects (id, name, created_at) VALUES ($1, $2, 0)";
            db::sqlx::query(insert).bind(project.to_string()).bind(name).execute(tx.conn()).await.unwrap();
            let insert = "INSERT INTO environments (project, name, position, created_at) VALUES ($1, 'dev', 0, 0)";
            db::sqlx::query(insert).bind(project.to_string()).execute(tx.conn()).await.unwrap();
            tx.bump_plan().await.unwrap();
            tx.commit().await.unwrap();
        });
    }

    /// Somebody who is signed in and a member of a project; without a password.
    pub(crate) fn add_person(&self, project: &str, role: &str) -> Person {
        self.database(async |db| {
            let (user, member): (base::UserId, base::MemberId) = (db.ids().make(), db.ids().make());
            let session: base::SessionId = db.ids().make();
            let cookie = format!("cookie-of-{user}");
            let email = format!("{role}-{user}@example.test");
            let now = db.now_us();
            let mut tx = db.begin_write().await.unwrap();
            let insert = "INSERT INTO users (id, email, name, created_at) VALUES ($1, $2, $3, $4)";
            let query = db::sqlx::query(insert).bind(user.to_string()).bind(&email).bind(role).bind(now);
            query.execute(tx.conn()).await.unwrap();
            let insert = "INSERT INTO members (id, project, user_id, role, created_at) \
                 SELECT $1, id, $2, $3, $4 FROM projects WHERE name = $5";
            let query = db::sqlx::query(insert).bind(member.to_string()).bind(user.to_string()).bind(role).bind(now);
            query.bind(project).execute(tx.conn()).await.unwrap();
            let insert = "INSERT INTO sessions (id_hash, id, user_id, created_at, last_seen_at, expires_at, user_agent) \
                 VALUES ($1, $2, $3, $4, $4, $5, 'test')";
            let query = db::sqlx::query(insert).bind(base::Digest::of(cookie.as_bytes()).hex()).bind(session.to_string());
            let query = query.bind(user.to_string()).bind(now).bind(now + 3_600_000_000);
            query.execute(tx.conn()).await.unwrap();
            tx.commit().await.unwrap();
            Person { id: user.to_string(), cookie }
        })
    }
}

impl Ended {
    /// The command must have done what it was told.
    pub(crate) fn assert_done(&self) {
        assert_eq!(self.code, 0, "{self:?}");
    }
}

/// A member that [`Place::add_person`] made.
pub(crate) struct Person {
    pub(crate) id: String,
    cookie: String,
}

/// A connection to PostgreSQL that a test can cut: servers are given its address.
pub(crate) struct Wire {
    /// The database's URL through this wire.
    pub(crate) url: String,
    address: SocketAddr,
    is_cut: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    /// A wire to the place's PostgreSQL.
    pub(crate) fn to(place: &Place) -> Self {
        let url = place.database_url().unwrap();
        let (_, rest) = url.split_once('@').unwrap();
        let (target, _) = rest.split_once('/').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (is_cut, streams) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(Mutex::new(Vec::new())),
        );
        let (flag, kept, to) = (Arc::clone(&is_cut), Arc::clone(&streams), target.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if flag.load(Ordering::SeqCst) {
                    return;
                }
                let (here, there) = (stream.unwrap(), TcpStream::connect(&to).unwrap());
                for (from, to) in [(&here, &there), (&there, &here)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(std::net::Shutdown::Both);
                    });
                }
                kept.lock().unwrap().extend([here, there]);
            }
        });
        Self {
            url: url.replace(target, &address.to_string()),
            address,
            is_cut,
            streams,
        }
    }

    /// Breaks every connection and takes no new one.
    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for connections, which ends.
        let _ = TcpStream::connect(self.address);
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// A port that is free now. Outside of the range that outgoing connections use,
/// and different for tests that run at once.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..1000 {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let offset = (std::process::id() * 37 + u32::from(number) * 4567) % 20_000;
        let address = SocketAddr::from(([127, 0, 0, 1], 11_000 + u16::try_from(offset).unwrap()));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port");
}

/// A running server. Dropping it kills it. Derefs to a client with the place's key.
pub(crate) struct Live {
    pub(crate) child: Child,
    client: Client,
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl std::ops::Deref for Live {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Live {
    /// A program with this key.
    pub(crate) fn with_key(&self, secret: &str) -> Client {
        Client::new(self.client.address, Some(secret))
    }

    /// A program without any credential.
    pub(crate) fn anonymous(&self) -> Client {
        Client::new(self.client.address, None)
    }

    /// A browser without any cookie.
    pub(crate) fn browser(&self) -> Client {
        Client {
            is_browser: true,
            ..self.anonymous()
        }
    }

    /// A browser in which this person is signed in.
    pub(crate) fn browser_of(&self, person: &Person) -> Client {
        let browser = self.browser();
        browser.set_cookie(SESSION_COOKIE, &person.cookie);
        browser
    }

    /// A browser in which the first administrator has just signed up.
    pub(crate) fn set_up(&self, place: &Place, email: &str, password: &str) -> Client {
        let browser = self.browser();
        let link = place.setup_link();
        let token = link.split_once('=').unwrap().1;
        let reply = browser.form(
            "/setup",
            &[
                ("token", token),
                ("name", "Ada"),
                ("email", email),
                ("password", password),
            ],
        );
        assert_eq!(
            (reply.status, reply.header("location").as_deref()),
            (303, Some("/")),
            "{reply:?}"
        );
        browser
    }

    /// Sends a signal to the process.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits until the process has ended; its exit code.
    pub(crate) fn wait(&mut self) -> i32 {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < until, "the server does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Somebody who calls the server, over a connection of its own for each request.
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    key: Option<String>,
    cookies: Mutex<BTreeMap<String, String>>,
    is_browser: bool,
}

impl Client {
    fn new(address: SocketAddr, key: Option<&str>) -> Self {
        Self {
            address,
            key: key.map(str::to_owned),
            cookies: Mutex::default(),
            is_browser: false,
        }
    }

    /// The origin that this server's pages have.
    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The cookie that is held under this name.
    pub(crate) fn cookie(&self, name: &str) -> Option<String> {
        self.cookies.lock().unwrap().get(name).cloned()
    }

    /// Holds this cookie from now on.
    pub(crate) fn set_cookie(&self, name: &str, value: &str) {
        self.cookies
            .lock()
            .unwrap()
            .insert(name.to_owned(), value.to_owned());
    }

    /// Begins a request with what this client always sends.
    pub(crate) fn call(&self, method: &str, path: &str) -> Call<'_> {
        let mut call = self
            .bare(method, path)
            .header("host", &self.address.to_string());
        if let Some(key) = &self.key {
            call = call.header("authorization", &format!("Bearer {key}"));
        }
        if self.is_browser {
            let cookies: Vec<String> = self
                .cookies
                .lock()
                .unwrap()
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            if !cookies.is_empty() {
                call = call.header("cookie", &cookies.join("; "));
            }
            call = call
                .header("sec-fetch-site", "same-origin")
                .header("accept", "text/html");
            if method != "GET" {
                call = call.header("origin", &self.origin());
            }
        }
        call
    }

    /// Begins a request that has no header at all, `host` included.
    pub(crate) fn bare(&self, method: &str, path: &str) -> Call<'_> {
        Call {
            client: self,
            method: method.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.call("GET", path).send()
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.call("POST", path).json(body).send()
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> Reply {
        self.call("PUT", path).json(body).send()
    }

    pub(crate) fn delete(&self, path: &str) -> Reply {
        self.call("DELETE", path).send()
    }

    /// Posts a form, as a page does.
    pub(crate) fn form(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        self.call("POST", path).form(fields).send()
    }

    /// A chat call; its trace id.
    pub(crate) fn chat(&self, request: &Value) -> String {
        let reply = self.post("/v1/chat/completions", request);
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.header("x-meguri-trace-id").unwrap()
    }

    /// Waits until a GET gives what is wanted.
    pub(crate) fn wait_for(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let reply = self.get(path);
            if reply.status == 200 {
                let value = reply.json();
                if wanted(&value) {
                    return value;
                }
            }
            assert!(Instant::now() < until, "{path}: {reply:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Opens a connection.
    pub(crate) fn connect(&self) -> TcpStream {
        self.try_connect().unwrap()
    }

    fn try_connect(&self) -> Option<TcpStream> {
        let stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        Some(stream)
    }

    /// Sends bytes as they are; the answer to them, if there was one.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Option<Reply> {
        let mut stream = self.try_connect()?;
        // The server may refuse and close before everything is sent.
        let _ = stream.write_all(bytes);
        read_reply(stream)
    }

    fn keep_cookies(&self, reply: &Reply) {
        let mut cookies = self.cookies.lock().unwrap();
        for line in reply.headers("set-cookie") {
            let (name, rest) = line.split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            if line.contains("Max-Age=0") {
                cookies.remove(name);
            } else {
                cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }
}

/// A request that is being written.
#[must_use]
pub(crate) struct Call<'a> {
    client: &'a Client,
    method: String,
    path: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Call<'_> {
    /// Adds a header, even if it is there already.
    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        self.header_bytes(name, value.as_bytes())
    }

    /// Adds a header whose value need not be text.
    pub(crate) fn header_bytes(mut self, name: &str, value: &[u8]) -> Self {
        self.headers.push((name.to_owned(), value.to_vec()));
        self
    }

    /// Takes a header away that the client would send.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    /// Replaces a header.
    pub(crate) fn with(self, name: &str, value: &str) -> Self {
        self.without(name).header(name, value)
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string().as_bytes())
    }

    pub(crate) fn form(self, fields: &[(&str, &str)]) -> Self {
        let text: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{name}={}", encode(value)))
            .collect();
        self.body(
            "application/x-www-form-urlencoded",
            text.join("&").as_bytes(),
        )
    }

    /// A body of any type and any bytes.
    pub(crate) fn body(mut self, kind: &str, bytes: &[u8]) -> Self {
        self.body = bytes.to_vec();
        self.header("content-type", kind)
    }

    fn write(&self) -> Option<TcpStream> {
        let mut stream = self.client.try_connect()?;
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.path).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(format!("{name}: ").as_bytes());
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(
            format!(
                "connection: close\r\ncontent-length: {}\r\n\r\n",
                self.body.len()
            )
            .as_bytes(),
        );
        bytes.extend_from_slice(&self.body);
        // The server may refuse and close before everything is sent.
        let _ = stream.write_all(&bytes);
        Some(stream)
    }

    /// The answer; `None` when the server is gone.
    pub(crate) fn try_send(&self) -> Option<Reply> {
        let reply = read_reply(self.write()?)?;
        if self.client.is_browser {
            self.client.keep_cookies(&reply);
        }
        Some(reply)
    }

    /// The answer.
    pub(crate) fn send(&self) -> Reply {
        self.try_send()
            .unwrap_or_else(|| panic!("no answer to {} {}", self.method, self.path))
    }

    /// The answer while it comes: its lines, chunk sizes among them.
    pub(crate) fn open(&self) -> BufReader<TcpStream> {
        BufReader::new(self.write().unwrap())
    }
}

/// Reads until a line has this text; everything that was read.
pub(crate) fn read_until(stream: &mut BufReader<TcpStream>, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        let read = stream.read_line(&mut seen).unwrap();
        assert!(read > 0, "the answer ended without {text:?}: {seen}");
    }
    seen
}

/// A whole answer.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n\n{}", self.head, self.text())
    }
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.headers(name).into_iter().next()
    }

    pub(crate) fn headers(&self, name: &str) -> Vec<String> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
            .collect()
    }

    /// `error.code` of our own API and of OpenAI's shape.
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"]
            .as_str()
            .unwrap_or_else(|| panic!("no error code: {self:?}"))
            .to_owned()
    }

    /// Status and error code.
    pub(crate) fn refusal(&self) -> (u16, String) {
        (self.status, self.code())
    }

    /// Status and body without what differs between two equal refusals.
    pub(crate) fn without_request_id(&self) -> (u16, String) {
        let id = self.header("x-request-id").unwrap_or_default();
        let text = if id.is_empty() {
            self.text()
        } else {
            self.text().replace(&id, "REQUEST")
        };
        let nonce = self
            .header("content-security-policy")
            .and_then(|csp| Some(csp.split("'nonce-").nth(1)?.split('\'').next()?.to_owned()));
        (
            self.status,
            nonce.map_or(text.clone(), |nonce| text.replace(&nonce, "NONCE")),
        )
    }
}

fn read_reply(mut stream: TcpStream) -> Option<Reply> {
    let mut bytes = Vec::new();
    // What arrived before a reset counts.
    let _ = stream.read_to_end(&mut bytes);
    let split = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8(bytes[..split].to_vec()).ok()?;
    let status = head.get(9..12)?.parse().ok()?;
    let reply = Reply {
        status,
        head,
        body: bytes[split + 4..].to_vec(),
    };
    match reply.header("transfer-encoding") {
        Some(_) => Some(Reply {
            body: unchunk(&reply.body),
            ..reply
        }),
        None => Some(reply),
    }
}

/// The content of a chunked body, as much as there is of it.
fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&rest[..end])
            .ok()
            .and_then(|size| usize::from_str_radix(size, 16).ok());
        match size {
            None | Some(0) => break,
            Some(size) => {
                let until = rest.len().min(end + 2 + size);
                out.extend_from_slice(&rest[end + 2..until]);
                rest = rest.get(end + 4 + size..).unwrap_or_default();
            }
        }
    }
    out
}

/// A chat request to the fake provider.
pub(crate) fn question(text: &str) -> Value {
    json!({"model": "fake/tiny", "messages": [{"role": "user", "content": text}]})
}

/// Percent-encodes everything, so that nothing in it can be special.
pub(crate) fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Every file below a folder.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path))
        } else {
            files.push(path)
        }
    }
    files
}
