//! Evaluators of the team's own as WebAssembly modules, run here and reaching nothing.
//!
//! A module has no imports: no network, no files, no clock, no randomness. It gets a text
//! and gives one back. Each score is a new instance, so nothing is carried from one answer
//! or project to another, and the same answer gives the same score on every machine. Fuel
//! bounds what it computes, a limit its memory, and a deadline the time, because fuel alone
//! says little about seconds; the run is cut into slices of fuel to look at the clock
//! between them. Whatever it does wrong is a text for people.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base::Digest;
use db::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use wasmi::{
    CompilationMode, Config, EnforcedLimits, Engine, Error, ExternType, Linker, Memory, Module,
    Store, StoreLimits, StoreLimitsBuilder, TrapCode, TypedResumableCall, ValType,
};

use super::document::{Direction, Problems, is_higher};

/// The largest module.
pub const MODULE_BYTES: usize = 4 << 20;
/// The most that a module may answer.
const ANSWER_BYTES: usize = 64 << 10;
const MOST_FUEL: u64 = 100_000_000_000;
const MOST_MEMORY_MIB: u32 = 256;
const MOST_TABLE_ELEMENTS: usize = 100_000;
/// How long one evaluation may take, whatever fuel it has left.
const DEADLINE: Duration = Duration::from_secs(10);
/// Fuel between two looks at the clock.
const SLICE: u64 = 5_000_000;
const STACK_BYTES: usize = 1 << 20;
const STACK_DEPTH: usize = 1000;
const PAGES_PER_MIB: u64 = 16;
/// What some compilers leave to be called before everything else.
const INITIALIZE: &str = "_initialize";
/// How much of a module's own words is repeated in messages.
const WORD_BYTES: usize = 60;

/// A WebAssembly module: it exports `memory`, `alloc(len) -> ptr` and
/// `evaluate(ptr, len) -> ptr << 32 | len`, and imports nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WasmEvaluator {
    /// What the people who read the result should know.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The module: the digest that its upload gave.
    pub module: String,
    /// How much it may compute; an instruction takes about one.
    #[serde(default = "default_fuel")]
    pub fuel: u64,
    /// How much memory it may have, in MiB.
    #[serde(default = "default_memory")]
    pub memory_mib: u32,
    /// What it is told each time, as `parameters`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub parameters: Map<String, Value>,
    /// Which direction is good.
    #[serde(default, skip_serializing_if = "is_higher")]
    pub better: Direction,
}

fn default_fuel() -> u64 {
    200_000_000
}

fn default_memory() -> u32 {
    32
}

impl WasmEvaluator {
    /// A module with the usual limits.
    pub fn new(module: String) -> Self {
        Self {
            description: String::new(),
            module,
            fuel: default_fuel(),
            memory_mib: default_memory(),
            parameters: Map::new(),
            better: Direction::default(),
        }
    }

    /// The module's digest, where it is one.
    pub fn digest(&self) -> Option<Digest> {
        self.module.parse().ok()
    }

    /// What its numbers are signed with. Fuel and memory decide whether there is a number, never
    /// which one, so they are left out.
    pub(super) fn signature(&self) -> String {
        let digest = self.digest().map(|digest| digest.short());
        let parameters = match self.parameters.is_empty() {
            true => String::new(),
            false => format!("|parameters:{}", json!(self.parameters)),
        };
        format!("wasm|module:{}{parameters}", digest.unwrap_or_default())
    }
}

pub(super) fn check(wasm: &WasmEvaluator, problems: &mut Problems) {
    if wasm.digest().is_none() {
        problems.add(
            "/module",
            "a module is named by the digest that its upload gave: sha256:…",
        );
    }
    if !(1..=MOST_FUEL).contains(&wasm.fuel) {
        problems.add("/fuel", format!("fuel is 1 to {MOST_FUEL}"));
    }
    if !(1..=MOST_MEMORY_MIB).contains(&wasm.memory_mib) {
        let message = format!("memory is 1 to {MOST_MEMORY_MIB} MiB");
        problems.add("/memory_mib", message);
    }
}

/// Whether a blob is a module that this evaluator could run.
///
/// # Errors
/// What is wrong, with the place in the evaluator's document.
pub fn check_module(wasm: &WasmEvaluator, bytes: &[u8]) -> Result<(), Problem> {
    let module = compile(bytes).map_err(|why| Problem::new("/module", why))?;
    fits(&module, wasm.memory_mib).map_err(|why| Problem::new("/memory_mib", why))
}

/// A configuration of its own for each module: what is compiled is freed with its engine.
fn engine() -> Engine {
    let mut config = Config::default();
    config
        .consume_fuel(true)
        // Translating a function at its first call would take that call's fuel.
        .compilation_mode(CompilationMode::Eager)
        .allow_start_fn(false)
        .ignore_custom_sections(true)
        .wasm_multi_memory(false)
        .enforced_limits(EnforcedLimits::strict())
        .set_max_recursion_depth(STACK_DEPTH)
        .set_max_stack_height(STACK_BYTES)
        .set_max_cached_stacks(0);
    Engine::new(&config)
}

/// Reads a module and checks that it can be an evaluator.
///
/// # Errors
/// What it lacks or has too much of.
pub fn compile(bytes: &[u8]) -> Result<Module, String> {
    if bytes.len() > MODULE_BYTES {
        return Err(format!(
            "the module has {} bytes; a module has at most {MODULE_BYTES}",
            bytes.len()
        ));
    }
    if !bytes.starts_with(b"\0asm") {
        return Err("this is no WebAssembly module; it begins otherwise".to_owned());
    }
    let module = Module::new(&engine(), bytes);
    let module = module.map_err(|error| {
        let why = error.to_string();
        match why.contains("start function") {
            true => "the module has a start function, which would run unbounded; export it as \
                     _initialize instead"
                .to_owned(),
            false => format!("this is no module that can run here: {why}"),
        }
    })?;
    if let Some(import) = module.imports().next() {
        return Err(format!(
            "the module imports {:?} of {:?}; a module imports nothing, because it reaches nothing \
             outside of itself (no network, no files, no WASI)",
            cut(import.name()),
            cut(import.module())
        ));
    }
    if !matches!(module.get_export("memory"), Some(ExternType::Memory(_))) {
        return Err("the module exports no memory called \"memory\"".to_owned());
    }
    let wanted: [(&str, &[ValType], &[ValType]); 2] = [
        ("alloc", &[ValType::I32], &[ValType::I32]),
        ("evaluate", &[ValType::I32, ValType::I32], &[ValType::I64]),
    ];
    for (name, parameters, results) in wanted {
        is_exported(&module, name, parameters, results)?;
    }
    Ok(module)
}

fn is_exported(
    module: &Module,
    name: &str,
    parameters: &[ValType],
    results: &[ValType],
) -> Result<(), String> {
    let wanted = format!("({}) -> {}", words(parameters), words(results));
    match module.get_export(name) {
        Some(ExternType::Func(func))
            if func.params() == parameters && func.results() == results =>
        {
            Ok(())
        }
        Some(ExternType::Func(func)) => Err(format!(
            "the module's {name} is ({}) -> {}; it must be {wanted}",
            words(func.params()),
            words(func.results())
        )),
        Some(_) => Err(format!("the module's {name} is no function")),
        None => Err(format!("the module exports no function {name}{wanted}")),
    }
}

fn words(types: &[ValType]) -> String {
    let words = types.iter().map(|kind| match kind {
        ValType::I32 => "i32",
        ValType::I64 => "i64",
        ValType::F32 => "f32",
        ValType::F64 => "f64",
        _ => "another type",
    });
    words.collect::<Vec<_>>().join(", ")
}

fn cut(text: &str) -> &str {
    base::text::cut_bytes(text, WORD_BYTES)
}

/// Whether the memory that a module begins with is allowed.
fn fits(module: &Module, memory_mib: u32) -> Result<(), String> {
    let pages = match module.get_export("memory") {
        Some(ExternType::Memory(memory)) => memory.minimum(),
        _ => 0,
    };
    if pages > u64::from(memory_mib) * PAGES_PER_MIB {
        let begins = pages.div_ceil(PAGES_PER_MIB);
        return Err(format!(
            "the module begins with {begins} MiB of memory and may have {memory_mib}"
        ));
    }
    Ok(())
}

/// A module that ran a moment ago.
struct Recent {
    digest: Digest,
    bytes: usize,
    module: Module,
}

/// The last one last, of [`MODULE_BYTES`] together. Compiling takes longer than most runs, and
/// an evaluation runs one module on thousands of answers.
static RECENT: Mutex<Vec<Recent>> = Mutex::new(Vec::new());

/// The module of this digest, compiled. `read` gives its bytes when it must be compiled.
///
/// # Errors
/// It cannot be read, or cannot be an evaluator.
pub fn module_of(
    digest: Digest,
    read: impl FnOnce() -> Result<Vec<u8>, String>,
) -> Result<Module, String> {
    let kept = || RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = kept().iter().find(|one| one.digest == digest) {
        return Ok(found.module.clone());
    }
    let bytes = read()?;
    let module = compile(&bytes)?;
    let mut kept = kept();
    kept.retain(|one| one.digest != digest);
    kept.push(Recent {
        digest,
        bytes: bytes.len(),
        module: module.clone(),
    });
    while kept.iter().map(|one| one.bytes).sum::<usize>() > MODULE_BYTES {
        kept.remove(0);
    }
    Ok(module)
}

/// What a module replied.
#[derive(Debug)]
pub struct Reply {
    /// The JSON.
    pub value: Value,
    /// The fuel that it took.
    pub fuel: u64,
}

/// What a module is given. `example` has `input`, `expected`, `context` and `metadata`.
pub fn input(wasm: &WasmEvaluator, example: &Value, answer: &str) -> Value {
    json!({
        "input": example["input"], "expected": example["expected"], "context": example["context"],
        "metadata": example["metadata"], "answer": answer, "parameters": wasm.parameters,
    })
}

/// Runs a module on one answer. Blocks for as long as it runs.
///
/// # Errors
/// Why there is no reply, for people.
pub fn run(module: &Module, wasm: &WasmEvaluator, input: &Value) -> Result<Reply, String> {
    let mut machine = Machine::start(module, wasm)?;
    let text = input.to_string();
    let length = i32::try_from(text.len()).map_err(|_| "the answer is too large".to_owned())?;
    if matches!(
        module.get_export(INITIALIZE),
        Some(ExternType::Func(func)) if func.params().is_empty() && func.results().is_empty()
    ) {
        machine.call::<(), ()>(INITIALIZE, ())?;
    }
    let place: i32 = machine.call("alloc", length)?;
    machine.write(place, text.as_bytes())?;
    let packed: i64 = machine.call("evaluate", (place, length))?;
    let packed = packed.cast_unsigned();
    let (place, length) = (packed >> 32, packed & 0xffff_ffff);
    let reply = machine.read(place, length)?;
    let value =
        serde_json::from_slice(&reply).map_err(|_| "the module's reply is not JSON".to_owned())?;
    Ok(Reply {
        value,
        fuel: wasm.fuel - machine.fuel_left()?,
    })
}

/// One instance of a module.
struct Machine {
    store: Store<StoreLimits>,
    instance: wasmi::Instance,
    memory: Memory,
    /// Fuel that was not handed out yet.
    fuel: u64,
    deadline: Instant,
    memory_mib: u32,
}

impl Machine {
    fn start(module: &Module, wasm: &WasmEvaluator) -> Result<Self, String> {
        fits(module, wasm.memory_mib)?;
        let bytes_allowed = usize::try_from(wasm.memory_mib).unwrap_or(1) << 20;
        let limits = StoreLimitsBuilder::new()
            .memory_size(bytes_allowed)
            .table_elements(MOST_TABLE_ELEMENTS)
            .instances(1)
            .memories(1)
            .tables(4)
            // A module that is told -1 gives up somewhere else, and nobody knows why.
            .trap_on_grow_failure(true)
            .build();
        let mut store = Store::new(module.engine(), limits);
        store.limiter(|limits| limits);
        let first = wasm.fuel.min(SLICE);
        store.set_fuel(first).map_err(|error| broken(&error))?;
        let linker = Linker::<StoreLimits>::new(module.engine());
        let instance = linker.instantiate_and_start(&mut store, module);
        let instance = instance.map_err(|error| explain(&error, wasm.memory_mib))?;
        let memory = instance
            .get_memory(&store, "memory")
            .ok_or("the module exports no memory called \"memory\"")?;
        Ok(Self {
            store,
            instance,
            memory,
            fuel: wasm.fuel - first,
            deadline: Instant::now() + DEADLINE,
            memory_mib: wasm.memory_mib,
        })
    }

    /// Calls a function, a slice of fuel at a time.
    fn call<P, R>(&mut self, name: &str, parameters: P) -> Result<R, String>
    where
        P: wasmi::WasmParams,
        R: wasmi::WasmResults,
    {
        let function = self.instance.get_typed_func::<P, R>(&self.store, name);
        let function = function
            .map_err(|_| format!("the module exports no function {name} of the right form"))?;
        let mut call = function.call_resumable(&mut self.store, parameters);
        loop {
            let stopped = match call.map_err(|error| explain(&error, self.memory_mib))? {
                TypedResumableCall::Finished(results) => return Ok(results),
                TypedResumableCall::OutOfFuel(stopped) => stopped,
                TypedResumableCall::HostTrap(_) => {
                    return Err("the module called something that is not there".to_owned());
                }
            };
            self.refuel(stopped.required_fuel())?;
            call = stopped.resume(&mut self.store);
        }
    }

    /// Hands out the next slice, which is at least what is needed to go on.
    fn refuel(&mut self, needed: u64) -> Result<(), String> {
        if Instant::now() >= self.deadline {
            let seconds = DEADLINE.as_secs();
            return Err(format!("the module ran longer than {seconds} s"));
        }
        let left = self.store.get_fuel().map_err(|error| broken(&error))?;
        let more = SLICE.max(needed).min(self.fuel);
        let tank = left.saturating_add(more);
        if more == 0 || tank < needed {
            return Err("the module used up its fuel".to_owned());
        }
        self.fuel -= more;
        self.store.set_fuel(tank).map_err(|error| broken(&error))
    }

    fn fuel_left(&self) -> Result<u64, String> {
        let left = self.store.get_fuel().map_err(|error| broken(&error))?;
        Ok(left + self.fuel)
    }

    fn write(&mut self, place: i32, bytes: &[u8]) -> Result<(), String> {
        let place = usize::try_from(place.cast_unsigned()).unwrap_or(usize::MAX);
        self.memory
            .write(&mut self.store, place, bytes)
            .map_err(|_| "alloc gave a place outside of the module's memory".to_owned())
    }

    fn read(&self, place: u64, length: u64) -> Result<Vec<u8>, String> {
        let (Ok(place), Ok(length)) = (usize::try_from(place), usize::try_from(length)) else {
            return Err("the module's reply lies outside of its memory".to_owned());
        };
        if length > ANSWER_BYTES {
            return Err(format!(
                "the module's reply has {length} bytes; the limit is {ANSWER_BYTES}"
            ));
        }
        let mut bytes = vec![0; length];
        self.memory
            .read(&self.store, place, &mut bytes)
            .map_err(|_| "the module's reply lies outside of its memory".to_owned())?;
        Ok(bytes)
    }
}

fn broken(error: &impl std::fmt::Display) -> String {
    format!("the module cannot be run: {error}")
}

fn explain(error: &Error, memory_mib: u32) -> String {
    match error.as_trap_code() {
        Some(TrapCode::OutOfFuel) => "the module used up its fuel".to_owned(),
        Some(TrapCode::GrowthOperationLimited) => {
            format!("the module wanted more than {memory_mib} MiB of memory")
        }
        Some(TrapCode::UnreachableCodeReached) => "the module gave up (a panic)".to_owned(),
        Some(TrapCode::StackOverflow) => "the module called itself too deeply".to_owned(),
        Some(code) => format!("the module failed: {code}"),
        None => broken(error),
    }
}
