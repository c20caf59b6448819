//! Where the boxes and lines of an app's drawing go.
//!
//! Layers from top to bottom: a step stands below everything it waits for. A
//! line that passes a layer gets a place of its own in it, so that it never
//! runs through a box. Knows boxes and lines only; what they mean is the page's.

use serde::Serialize;

/// A box to place.
#[derive(Debug, Clone, Default)]
pub(super) struct Node {
    /// Names the step; drawn as the title.
    pub(super) id: String,
    /// `prompt`, `tool`, `agent` …: chooses the mark's colour.
    pub(super) kind: String,
    /// The second line.
    pub(super) text: String,
    /// Where a click leads; empty for nowhere.
    pub(super) href: String,
    /// The condition that it runs under; empty when it always does.
    pub(super) when: String,
    /// The steps inside it.
    pub(super) inside: Option<Graph>,
}

/// Boxes and who waits for whom, by index.
#[derive(Debug, Clone, Default)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) edges: Vec<(usize, usize)>,
}

/// A finished drawing, in pixels.
#[derive(Debug, Serialize)]
pub(super) struct Drawing {
    width: i32,
    height: i32,
    boxes: Vec<Placed>,
    lines: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Placed {
    x: i32,
    y: i32,
    width: i32,
    height: i32,
    kind: String,
    title: String,
    text: String,
    /// Everything that the box is about, uncut.
    full: String,
    href: String,
    has_condition: bool,
    is_group: bool,
}

#[derive(Debug, Serialize)]
struct Line {
    path: String,
    arrow: String,
}

const BOX_WIDTH: i32 = 190;
const BOX_HEIGHT: i32 = 46;
/// Of a box with one line.
const SMALL_HEIGHT: i32 = 30;
const GAP_X: i32 = 22;
const GAP_Y: i32 = 36;
const PASS_WIDTH: i32 = 10;
const PADDING: i32 = 14;
const GROUP_HEAD: i32 = 28;
const MARGIN: i32 = 2;
/// Letters that fit on a line of a box; a CJK letter counts as two.
const TITLE_CELLS: usize = 20;
const TEXT_CELLS: usize = 26;
/// Rounds of ordering a layer by what stands above it.
const SWEEPS: usize = 3;

/// Draws a graph.
pub(super) fn draw(graph: &Graph) -> Drawing {
    let mut room = place(graph);
    room.shift(MARGIN, MARGIN);
    Drawing {
        width: room.width + 2 * MARGIN,
        height: room.height + 2 * MARGIN,
        boxes: room.boxes,
        lines: room.lines.iter().map(|points| line(points)).collect(),
    }
}

/// Boxes and lines around an origin of their own.
#[derive(Debug, Default)]
struct Room {
    width: i32,
    height: i32,
    boxes: Vec<Placed>,
    lines: Vec<Vec<(i32, i32)>>,
}

impl Room {
    fn shift(&mut self, x: i32, y: i32) {
        for placed in &mut self.boxes {
            placed.x += x;
            placed.y += y;
        }
        for point in self.lines.iter_mut().flatten() {
            point.0 += x;
            point.1 += y;
        }
    }

    fn take(&mut self, mut other: Self, x: i32, y: i32) {
        other.shift(x, y);
        self.boxes.append(&mut other.boxes);
        self.lines.append(&mut other.lines);
    }
}

/// What takes room in a layer: a box, or a line on its way past.
struct Item {
    node: Option<usize>,
    width: i32,
    height: i32,
    x: i32,
    y: i32,
    above: Vec<usize>,
}

fn place(graph: &Graph) -> Room {
    let insides: Vec<Option<Room>> = graph
        .nodes
        .iter()
        .map(|node| node.inside.as_ref().map(place))
        .collect();
    let mut items: Vec<Item> = insides
        .iter()
        .enumerate()
        .map(|(index, inside)| item_of(index, &graph.nodes[index], inside.as_ref()))
        .collect();
    let depth = depths(graph);
    let mut layers: Vec<Vec<usize>> = Vec::new();
    for (index, &layer) in depth.iter().enumerate() {
        if layers.len() <= layer {
            layers.resize_with(layer + 1, Vec::new);
        }
        layers[layer].push(index);
    }
    let ways: Vec<Vec<usize>> = graph
        .edges
        .iter()
        .map(|&(from, to)| {
            lead(
                &mut items,
                &mut layers,
                (from, depth[from]),
                (to, depth[to]),
            )
        })
        .collect();
    order(&mut layers, &items);
    let (width, height) = stack(&layers, &mut items);
    let mut room = Room {
        width,
        height,
        ..Room::default()
    };
    for way in &ways {
        room.lines.push(points(way, &items));
    }
    for ((node, inside), index) in graph.nodes.iter().zip(insides).zip(0..) {
        let item = &items[index];
        room.boxes.push(placed(node, item));
        if let Some(inside) = inside {
            let left = (item.width - inside.width) / 2;
            room.take(inside, item.x + left, item.y + GROUP_HEAD);
        }
    }
    room
}

fn item_of(index: usize, node: &Node, inside: Option<&Room>) -> Item {
    let (width, height) = match inside {
        Some(room) => (
            (room.width + 2 * PADDING).max(BOX_WIDTH),
            room.height + GROUP_HEAD + PADDING,
        ),
        None if node.text.is_empty() => (BOX_WIDTH, SMALL_HEIGHT),
        None => (BOX_WIDTH, BOX_HEIGHT),
    };
    Item {
        node: Some(index),
        width,
        height,
        x: 0,
        y: 0,
        above: Vec::new(),
    }
}

/// The layer of each box: one below the lowest that it waits for. A cycle, which
/// no checked app has, ends with the bound instead of never.
fn depths(graph: &Graph) -> Vec<usize> {
    let count = graph.nodes.len();
    let mut depth = vec![0; count];
    for _ in 0..count {
        let mut changed = false;
        for &(from, to) in &graph.edges {
            if depth[to] <= depth[from] && depth[from] + 1 < count {
                depth[to] = depth[from] + 1;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    depth
}

/// Gives a line its places in the layers between its ends; the items that it goes through.
fn lead(
    items: &mut Vec<Item>,
    layers: &mut [Vec<usize>],
    (from, top): (usize, usize),
    (to, bottom): (usize, usize),
) -> Vec<usize> {
    let mut way = vec![from];
    for layer in layers.get_mut(top + 1..bottom).unwrap_or_default() {
        let pass = items.len();
        items.push(Item {
            node: None,
            width: PASS_WIDTH,
            height: 0,
            x: 0,
            y: 0,
            above: vec![way[way.len() - 1]],
        });
        layer.push(pass);
        way.push(pass);
    }
    let last = way[way.len() - 1];
    items[to].above.push(last);
    way.push(to);
    way
}

/// Brings each layer into the order of what stands above it, which uncrosses most lines.
fn order(layers: &mut [Vec<usize>], items: &[Item]) {
    let mut place = vec![0.0; items.len()];
    for _ in 0..SWEEPS {
        for layer in layers.iter_mut() {
            let middle = |&index: &usize| {
                let above = &items[index].above;
                let sum: f64 = above.iter().map(|&other| place[other]).sum();
                sum / above.len().max(1) as f64
            };
            layer.sort_by(|a, b| middle(a).total_cmp(&middle(b)));
            let count = layer.len() as f64;
            for (position, &index) in layer.iter().enumerate() {
                place[index] = (position as f64 + 0.5) / count;
            }
        }
    }
}

/// Sets the layers below each other, each in the middle; width and height of all.
fn stack(layers: &[Vec<usize>], items: &mut [Item]) -> (i32, i32) {
    let widths: Vec<i32> = layers
        .iter()
        .map(|layer| {
            let boxes: i32 = layer.iter().map(|&index| items[index].width).sum();
            boxes + GAP_X * (i32::try_from(layer.len()).unwrap_or(1) - 1).max(0)
        })
        .collect();
    let width = widths.iter().copied().max().unwrap_or(0);
    let mut y = 0;
    for (layer, own) in layers.iter().zip(widths) {
        let height = layer.iter().map(|&index| items[index].height).max();
        let height = height.unwrap_or(0);
        let mut x = (width - own) / 2;
        for &index in layer {
            let item = &mut items[index];
            if item.node.is_none() {
                item.height = height;
            }
            (item.x, item.y) = (x, y + (height - item.height) / 2);
            x += item.width + GAP_X;
        }
        y += height + GAP_Y;
    }
    (width, (y - GAP_Y).max(0))
}

/// The points that a line goes through: down from its first box, straight past layers, into its last.
fn points(way: &[usize], items: &[Item]) -> Vec<(i32, i32)> {
    let mut points = Vec::new();
    for (position, &index) in way.iter().enumerate() {
        let item = &items[index];
        let x = item.x + item.width / 2;
        if position > 0 {
            points.push((x, item.y));
        }
        if position + 1 < way.len() {
            points.push((x, item.y + item.height));
        }
    }
    points
}

fn line(points: &[(i32, i32)]) -> Line {
    let mut path = String::new();
    for (index, pair) in points.windows(2).enumerate() {
        let [(x1, y1), (x2, y2)] = *pair else {
            continue;
        };
        if index == 0 {
            path = format!("M{x1} {y1}");
        }
        // Pairs alternate: across a gap in a curve, past a layer straight down.
        if index % 2 == 0 {
            let bend = (y2 - y1) / 2;
            path.push_str(&format!("C{x1} {} {x2} {} {x2} {y2}", y1 + bend, y2 - bend));
        } else {
            path.push_str(&format!("L{x2} {y2}"));
        }
    }
    let (x, y) = points.last().copied().unwrap_or_default();
    Line {
        path,
        arrow: format!("M{} {}L{x} {y}L{} {}", x - 4, y - 6, x + 4, y - 6),
    }
}

fn placed(node: &Node, item: &Item) -> Placed {
    let mut full = node.id.clone();
    for part in [&node.text, &node.when] {
        if !part.is_empty() {
            full = format!("{full} · {part}");
        }
    }
    Placed {
        x: item.x,
        y: item.y,
        width: item.width,
        height: item.height,
        kind: node.kind.clone(),
        title: fit(&node.id, TITLE_CELLS),
        text: fit(&node.text, TEXT_CELLS),
        full: base::text::reveal(&full),
        href: node.href.clone(),
        has_condition: !node.when.is_empty(),
        is_group: node.inside.is_some(),
    }
}

/// As much of a text as fits on one line.
fn fit(text: &str, cells: usize) -> String {
    let mut room = cells;
    let mut out = String::new();
    for letter in base::text::reveal(text).chars() {
        let width = if u32::from(letter) >= 0x1100 { 2 } else { 1 };
        if width > room {
            out.push('…');
            return out;
        }
        room -= width;
        out.push(letter);
    }
    out
}
