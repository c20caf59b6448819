//! The steps of an app as a drawing: nodes in layers, and what waits for what.

use serde::Serialize;

use super::compile::{Group, Source, Work, compile};
use super::document::AppDocument;

/// What there is to draw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Graph {
    /// The inputs, the steps, the output.
    pub nodes: Vec<GraphNode>,
    /// From what is waited for to what waits.
    pub edges: Vec<GraphEdge>,
}

/// A box of the drawing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GraphNode {
    /// The step's id; `@inputs` and `@output` are no steps.
    pub id: String,
    /// `inputs`, `prompt`, `tool`, `agent`, `chain`, `retrieve`, `guard` or `output`.
    pub kind: &'static str,
    /// The prompt, tool, policy or model that the step uses, to show below its id.
    pub detail: String,
    /// The chain that the step is in.
    pub parent: Option<String>,
    /// Whether the step may be skipped.
    pub conditional: bool,
    /// Whether the step runs once for each item of a list.
    pub repeated: bool,
    /// Its column: what it waits for stands in smaller ones. Counted inside its chain.
    pub layer: usize,
    /// Its place in the column.
    pub row: usize,
}

/// A line of the drawing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GraphEdge {
    /// What is waited for.
    pub from: String,
    /// What waits.
    pub to: String,
}

const INPUTS: &str = "@inputs";
const OUTPUT: &str = "@output";

impl AppDocument {
    /// The steps as a drawing. Of a document with problems, what can be drawn.
    pub fn graph(&self) -> Graph {
        let (compiled, _) = compile(self);
        let mut graph = Graph::default();
        graph.nodes.push(node(INPUTS, "inputs", 0));
        let depth = add_group(&mut graph, &compiled.group, None);
        graph.nodes.push(node(OUTPUT, "output", depth + 1));
        let ends = match (compiled.output.step, &compiled.output.value) {
            (Some(step), _) => vec![compiled.group.steps[step].id.clone()],
            (None, Some(value)) => {
                let mentions = value.mentions().unwrap_or_default();
                mentions.steps.into_iter().collect()
            }
            (None, None) => Vec::new(),
        };
        graph.edges.extend(ends.into_iter().map(|from| GraphEdge {
            from,
            to: OUTPUT.to_owned(),
        }));
        graph
    }
}

fn node(id: &str, kind: &'static str, layer: usize) -> GraphNode {
    GraphNode {
        id: id.to_owned(),
        kind,
        detail: String::new(),
        parent: None,
        conditional: false,
        repeated: false,
        layer,
        row: 0,
    }
}

/// Adds a group and says how many layers it has.
fn add_group(graph: &mut Graph, group: &Group, parent: Option<&str>) -> usize {
    let layers = layers(group);
    let mut rows = vec![0_usize; group.steps.len() + 2];
    for (step, layer) in group.steps.iter().zip(&layers) {
        let row = rows[*layer];
        rows[*layer] += 1;
        let (kind, detail, repeated) = describe(&step.work);
        graph.nodes.push(GraphNode {
            detail,
            parent: parent.map(str::to_owned),
            conditional: step.when.is_some(),
            repeated,
            row,
            ..node(&step.id, kind, *layer)
        });
        let before = step.needs.iter().map(|need| group.steps[*need].id.as_str());
        let before: Vec<&str> = match (step.needs.is_empty(), parent) {
            (true, None) => vec![INPUTS],
            _ => before.collect(),
        };
        graph.edges.extend(before.into_iter().map(|from| GraphEdge {
            from: from.to_owned(),
            to: step.id.clone(),
        }));
        if let Work::Chain { group, .. } = &step.work {
            add_group(graph, group, Some(&step.id));
        }
    }
    layers.into_iter().max().unwrap_or(0)
}

/// The column of each step: one after the last of those that it waits for.
fn layers(group: &Group) -> Vec<usize> {
    let mut layers = vec![1; group.steps.len()];
    // Each round settles at least one more; circles are drawn as far as that goes.
    for _ in 0..group.steps.len() {
        for (at, step) in group.steps.iter().enumerate() {
            let before = step.needs.iter().map(|need| layers[*need]).max();
            layers[at] = (before.unwrap_or(0) + 1).min(group.steps.len());
        }
    }
    layers
}

fn describe(work: &Work) -> (&'static str, String, bool) {
    let prompt = |source: &Source| match source {
        Source::Reference(text) => text.clone(),
        Source::Inline(_) => String::new(),
    };
    match work {
        Work::Prompt(model) => ("prompt", prompt(&model.prompt), false),
        Work::Agent(agent) => ("agent", prompt(&agent.model.prompt), false),
        Work::Tool { tool, .. } => ("tool", tool.clone(), false),
        Work::Chain { for_each, .. } => ("chain", String::new(), for_each.is_some()),
        Work::Guard(work) => ("guard", work.guard.clone(), false),
        Work::Missing(kind) => (kind, String::new(), false),
    }
}
