//! From a document of steps to what a page shows of it: the drawing, and one row per step.
//!
//! `graph.rs` knows where boxes go; this knows what they say and where they lead.

use gateway::{AppDocument, Step};
use serde_json::{Value, json};

use super::graph::{self, Graph, Node};
use super::pages::encode;
use crate::ui::PageContext;

/// One row per step, those inside a chain below it.
pub(super) fn step_rows(page: &PageContext, document: &AppDocument) -> Vec<Value> {
    let mut rows = Vec::new();
    push_steps(page, &document.steps, 0, &mut rows);
    rows
}

fn push_steps(page: &PageContext, steps: &[Step], depth: usize, rows: &mut Vec<Value>) {
    for step in steps {
        let described = describe(page, step);
        rows.push(json!({
            "id": step.id(), "kind": step.kind(), "depth": depth.min(3), "what": described.what,
            "what_href": described.href, "model": described.model, "when": step.when().unwrap_or_default(),
            "each": described.each,
        }));
        if let Step::Chain(chain) = step {
            push_steps(page, &chain.steps, depth + 1, rows);
        }
    }
}

/// What a step works with, in words.
#[derive(Default)]
struct Described {
    what: String,
    href: Option<String>,
    model: String,
    each: String,
}

fn describe(page: &PageContext, step: &Step) -> Described {
    match step {
        Step::Prompt(step) => described_prompt(page, &step.prompt, step.model.as_deref()),
        Step::Agent(step) => {
            let mut described = described_prompt(page, &step.prompt, step.model.as_deref());
            if !step.tools.is_empty() {
                described.what = format!("{} + {}", described.what, step.tools.join(", "));
            }
            described
        }
        Step::Tool(step) => Described {
            what: step.tool.clone(),
            ..Described::default()
        },
        Step::Chain(step) => Described {
            each: step.for_each.clone().unwrap_or_default(),
            ..Described::default()
        },
        Step::Retrieve(step) => Described {
            what: step.index.clone(),
            ..Described::default()
        },
        Step::Guard(step) => Described {
            what: step.guard.clone(),
            href: reference_href(page, &step.guard),
            ..Described::default()
        },
    }
}

fn described_prompt(
    page: &PageContext,
    prompt: &gateway::PromptSource,
    model: Option<&str>,
) -> Described {
    let (what, href) = match prompt {
        gateway::PromptSource::Reference(text) => (text.clone(), reference_href(page, text)),
        gateway::PromptSource::Inline(_) => (page.t("apps-inline"), None),
    };
    Described {
        what,
        href,
        model: model.unwrap_or_default().to_owned(),
        each: String::new(),
    }
}

fn reference_href(page: &PageContext, text: &str) -> Option<String> {
    let reference: db::catalog::Reference = text.parse().ok()?;
    let page_of = match reference.kind.as_str() {
        crate::prompts::KIND => "prompts/show",
        crate::guards::KIND => "guards/edit",
        _ => return None,
    };
    let name = encode(reference.name.as_str());
    Some(format!("{}/{page_of}?name={name}", page.root()))
}

/// The drawing of a document; of one with problems, what can be drawn.
pub(super) fn drawing(page: &PageContext, document: &AppDocument) -> graph::Drawing {
    graph::draw(&to_graph(page, document))
}

/// The gateway's graph as nested boxes; lines join boxes of one group only.
fn to_graph(page: &PageContext, document: &AppDocument) -> Graph {
    group(page, &document.graph(), None)
}

fn group(page: &PageContext, all: &gateway::Graph, parent: Option<&str>) -> Graph {
    let members: Vec<&gateway::GraphNode> = all
        .nodes
        .iter()
        .filter(|node| node.parent.as_deref() == parent)
        .collect();
    let place = |id: &str| members.iter().position(|node| node.id == id);
    let edges = all.edges.iter();
    let edges = edges.filter_map(|edge| Some((place(&edge.from)?, place(&edge.to)?)));
    Graph {
        edges: edges.collect(),
        nodes: members.iter().map(|node| drawn(page, all, node)).collect(),
    }
}

fn drawn(page: &PageContext, all: &gateway::Graph, node: &gateway::GraphNode) -> Node {
    let (title, href) = match node.kind {
        "inputs" => (page.t("apps-inputs"), String::new()),
        "output" => (page.t("apps-output"), String::new()),
        _ => (node.id.clone(), format!("#step-{}", node.id)),
    };
    let mut text = match (node.kind, node.detail.as_str()) {
        ("inputs" | "output", _) => String::new(),
        (kind, "") => page.t(&format!("apps-kind-{}", kind)),
        (_, detail) => detail.trim_start_matches("prompt:").to_owned(),
    };
    if node.repeated {
        text = format!("{text} ×n").trim_start().to_owned();
    }
    Node {
        id: title,
        kind: node.kind.to_owned(),
        text,
        href,
        when: if node.conditional {
            page.t("apps-when")
        } else {
            String::new()
        },
        inside: (node.kind == "chain").then(|| group(page, all, Some(&node.id))),
    }
}
