//! What protects a label: how many approvals by whom, which gates, and whether
//! it is moved by itself once they pass.

use serde::{Deserialize, Serialize};

use crate::catalog::Problem;

/// The gate that passes while everything that a document refers to is there and none of it quarantined.
pub const RESOLVES: &str = "resolves";
/// The gate that passes once the content has been in the environment before for long enough.
pub const EARLIER_ENVIRONMENT: &str = "earlier_environment";

const MAX_APPROVALS: u32 = 20;
const MAX_GATES: usize = 50;
const MAX_ROLES: usize = 20;
const DAY_S: i64 = 86_400;

/// What protects a label. Nobody approves what they asked for themselves,
/// whatever is said here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// How many people must approve a move.
    pub approvals: u32,
    /// In which roles; empty for every role that may approve at all.
    pub approver_roles: Vec<String>,
    /// What must be shown of the content before.
    pub gates: Vec<GateRule>,
    /// Whether content moves here by itself once its gates pass in the environment before.
    pub delivery: Delivery,
    /// How long a proposal stays open, in seconds; `None` for ever.
    pub expires_after_s: Option<i64>,
}

/// One gate of a label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateRule {
    /// [`RESOLVES`], [`EARLIER_ENVIRONMENT`], or the name that evidence is given under.
    pub name: String,
    /// Whether it holds a move up; otherwise it only informs.
    #[serde(default = "yes")]
    pub required: bool,
    /// How long the content must have been in the environment before; only for that gate.
    #[serde(default)]
    pub min_s: i64,
}

fn yes() -> bool {
    true
}

/// Who begins a move to an environment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// A person or a program.
    #[default]
    Manual,
    /// Nobody: content that passes the gates moves on, or is proposed where approvals are needed.
    Auto,
}

impl Rules {
    /// Whether a move needs more than the permission to move.
    pub fn guards_moves(&self) -> bool {
        self.approvals > 0 || self.gates.iter().any(|gate| gate.required)
    }

    /// Whether approvals by this role count.
    pub fn counts_role(&self, role: &str) -> bool {
        self.approver_roles.is_empty() || self.approver_roles.iter().any(|known| known == role)
    }

    /// Both: whoever satisfies the result satisfies each of the two.
    pub fn stricter(&self, other: &Self) -> Self {
        let approver_roles = match (
            self.approver_roles.as_slice(),
            other.approver_roles.as_slice(),
        ) {
            ([], roles) | (roles, []) => roles.to_vec(),
            (a, b) => {
                let both: Vec<String> = a.iter().filter(|role| b.contains(role)).cloned().collect();
                // A role that nobody has: the two sets have nobody in common.
                if both.is_empty() {
                    vec![String::new()]
                } else {
                    both
                }
            }
        };
        let mut gates = self.gates.clone();
        for gate in &other.gates {
            match gates.iter_mut().find(|known| known.name == gate.name) {
                Some(known) => {
                    known.required |= gate.required;
                    known.min_s = known.min_s.max(gate.min_s);
                }
                None => gates.push(gate.clone()),
            }
        }
        Self {
            approvals: self.approvals.max(other.approvals),
            approver_roles,
            gates,
            ..other.clone()
        }
    }

    /// What is wrong with rules that a person gave.
    ///
    /// # Errors
    /// Each problem, with its place.
    pub fn check(&self) -> Result<(), Vec<Problem>> {
        let mut problems = Vec::new();
        let mut wrong = |path: String, message: String| problems.push(Problem::new(path, message));
        if self.approvals > MAX_APPROVALS {
            wrong(
                "/approvals".into(),
                format!("at most {MAX_APPROVALS} approvals can be asked for"),
            );
        }
        if self.approver_roles.len() > MAX_ROLES || self.gates.len() > MAX_GATES {
            wrong(
                String::new(),
                format!("at most {MAX_ROLES} roles and {MAX_GATES} gates"),
            );
        }
        for (index, role) in self.approver_roles.iter().enumerate() {
            if !is_word(role) {
                wrong(
                    format!("/approver_roles/{index}"),
                    format!("{role:?} is not a role"),
                );
            }
        }
        if self
            .expires_after_s
            .is_some_and(|s| !(60..=365 * DAY_S).contains(&s))
        {
            wrong(
                "/expires_after_s".into(),
                "a proposal stays open for between a minute and a year".into(),
            );
        }
        for (index, gate) in self.gates.iter().enumerate() {
            if let Err(message) = gate.check(&self.gates[..index]) {
                wrong(format!("/gates/{index}"), message);
            }
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }
}

impl GateRule {
    fn check(&self, before: &[Self]) -> Result<(), String> {
        check_gate_name(&self.name)?;
        if before.iter().any(|gate| gate.name == self.name) {
            return Err(format!("the gate {:?} is there twice", self.name));
        }
        if self.min_s != 0 && self.name != EARLIER_ENVIRONMENT {
            return Err(format!("min_s belongs to the gate {EARLIER_ENVIRONMENT:?}"));
        }
        if !(0..=90 * DAY_S).contains(&self.min_s) {
            return Err("min_s is between 0 and 90 days".to_owned());
        }
        Ok(())
    }

    /// Whether people and programs give evidence for it, rather than the program looking itself.
    pub fn wants_evidence(&self) -> bool {
        wants_evidence(&self.name)
    }
}

pub(super) fn wants_evidence(gate: &str) -> bool {
    gate != RESOLVES && gate != EARLIER_ENVIRONMENT
}

/// A gate's name: what evidence is given under.
pub(super) fn check_gate_name(name: &str) -> Result<(), String> {
    if is_word(name) {
        Ok(())
    } else {
        Err(format!(
            "{name:?} cannot be a gate's name: 1 to 64 lower-case letters, digits and ._/-"
        ))
    }
}

fn is_word(text: &str) -> bool {
    let is_good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._/-".contains(&b);
    (1..=64).contains(&text.len()) && text.bytes().all(is_good)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Rules {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_stricter_of_two_asks_for_both() {
        let a = rules(
            r#"{"approvals":1,"approver_roles":["admin","product_owner"],"gates":[{"name":"eval","required":false},{"name":"earlier_environment","min_s":60}]}"#,
        );
        let b = rules(
            r#"{"approvals":2,"approver_roles":["product_owner"],"gates":[{"name":"eval"},{"name":"earlier_environment","min_s":5}]}"#,
        );
        let both = a.stricter(&b);
        assert_eq!(both, b.stricter(&a));
        assert_eq!(both.approvals, 2);
        assert_eq!(both.approver_roles, ["product_owner"]);
        assert!(both.gates.iter().all(|gate| gate.required));
        assert_eq!(both.gates[1].min_s, 60);

        let nobody = rules(r#"{"approver_roles":["admin"]}"#)
            .stricter(&rules(r#"{"approver_roles":["auditor"]}"#));
        assert!(!nobody.counts_role("admin") && !nobody.counts_role("auditor"));
    }

    #[test]
    fn wrong_rules_say_where() {
        let places = |text: &str| -> Vec<String> {
            let problems = rules(text).check().unwrap_err();
            problems.into_iter().map(|problem| problem.path).collect()
        };
        assert_eq!(
            places(r#"{"approvals":21,"expires_after_s":1}"#),
            ["/approvals", "/expires_after_s"]
        );
        assert_eq!(
            places(
                r#"{"gates":[{"name":"a"},{"name":"a"},{"name":"b","min_s":3},{"name":"A b"}]}"#
            ),
            ["/gates/1", "/gates/2", "/gates/3"]
        );
        assert!(serde_json::from_str::<Rules>(r#"{"aprovals":1}"#).is_err());
        assert!(rules(r#"{"approvals":1}"#).check().is_ok());
    }
}
