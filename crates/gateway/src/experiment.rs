//! Which arm of an experiment serves a call.
//!
//! The choice is a keyed hash of the unit (a user, a session, or the call
//! itself), so that it needs no memory, is the same on every node, and cannot be
//! guessed or steered by a client who does not know the key. What an experiment
//! has shown so far is none of the data plane's business: weights come with the
//! plan, and every record names the arm and its probability.

use base::Digest;
use sha2::{Digest as _, Sha256};

/// What an experiment splits: the place where a pointer would have been looked up.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A prompt's label.
    Prompt {
        /// The prompt's name.
        name: String,
        /// The label that callers use.
        label: String,
    },
    /// An app's environment.
    App {
        /// The app's name.
        name: String,
        /// The environment of the caller's key.
        environment: String,
    },
    /// A guard policy's label.
    Guard {
        /// The policy's name.
        name: String,
        /// The label that holds for the call: its environment's, or `production`.
        label: String,
    },
}

/// Who stays with one arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// The application's end user; a call that names none counts on its own.
    User,
    /// The conversation; a call that names none counts on its own.
    Session,
    /// Every call on its own.
    Request,
}

/// An experiment that runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    /// Its name.
    pub name: String,
    /// The version of its document.
    pub version: i64,
    /// Who stays with one arm.
    pub unit: Unit,
    /// Makes the split of this run unlike that of any other.
    pub key: [u8; 32],
    /// At least one. Weights need not sum to one here; they are shares of their sum.
    pub arms: Vec<Arm>,
    /// Arms that get a copy of this share of the calls, whose answers nobody sees.
    pub shadows: Vec<Arm>,
}

/// One side of an experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Arm {
    /// Its name: `control`, `candidate`.
    pub name: String,
    /// The version of the target's document: a prompt's or policy's version, or a
    /// release's number.
    pub number: i64,
    /// That version's content.
    pub digest: Digest,
    /// Its share.
    pub weight: f64,
}

/// The arm that a call belongs to, as its record keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct ArmUsed {
    /// The experiment's name.
    pub experiment: String,
    /// The version of its document.
    pub version: i64,
    /// The arm's name.
    pub arm: String,
    /// The probability with which this arm was chosen; 1 for a shadow.
    pub propensity: f64,
    /// True where the answer was recorded and never returned.
    pub shadow: bool,
}

impl Experiment {
    /// The arm of this unit. `unit` is the user's or session's name, or the trace
    /// id of a call that has none.
    pub fn choose(&self, unit: &str) -> Option<(&Arm, ArmUsed)> {
        let sum: f64 = self.arms.iter().map(|arm| arm.weight.max(0.0)).sum();
        if sum <= 0.0 {
            return None;
        }
        let mut left = self.point(b"arm", unit) * sum;
        // The last arm with a weight also takes what rounding leaves over.
        let mut chosen = None;
        for arm in self.arms.iter().filter(|arm| arm.weight > 0.0) {
            chosen = Some(arm);
            if left < arm.weight {
                break;
            }
            left -= arm.weight;
        }
        chosen.map(|arm| (arm, self.used(arm, arm.weight / sum, false)))
    }

    /// The shadows that get a copy of this unit's call.
    pub fn shadows(&self, unit: &str) -> Vec<(&Arm, ArmUsed)> {
        let point = self.point(b"shadow", unit);
        let copied = self.shadows.iter().filter(|arm| point < arm.weight);
        copied.map(|arm| (arm, self.used(arm, 1.0, true))).collect()
    }

    fn used(&self, arm: &Arm, propensity: f64, shadow: bool) -> ArmUsed {
        ArmUsed {
            experiment: self.name.clone(),
            version: self.version,
            arm: arm.name.clone(),
            propensity,
            shadow,
        }
    }

    /// A number in [0, 1) that depends on the key, the purpose and the unit only.
    fn point(&self, purpose: &[u8], unit: &str) -> f64 {
        let mut hash = Sha256::new();
        hash.update(self.key);
        hash.update(purpose);
        hash.update([0]);
        hash.update(unit.as_bytes());
        let bytes: [u8; 32] = hash.finalize().into();
        let mut high = [0; 8];
        high.copy_from_slice(&bytes[..8]);
        // 53 bits: what a double holds exactly.
        (u64::from_be_bytes(high) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn experiment(weights: &[f64]) -> Experiment {
        let arm = |(index, weight): (usize, &f64)| Arm {
            name: format!("arm{index}"),
            number: i64::try_from(index).unwrap(),
            digest: Digest::of(b"x"),
            weight: *weight,
        };
        Experiment {
            name: "e".to_owned(),
            version: 1,
            unit: Unit::User,
            key: [7; 32],
            arms: weights.iter().enumerate().map(arm).collect(),
            shadows: Vec::new(),
        }
    }

    #[test]
    fn units_stay_with_their_arm_and_shares_come_out_right() {
        let split = experiment(&[3.0, 0.0, 1.0]);
        let mut counts = [0_u32; 3];
        for user in 0..20_000 {
            let unit = format!("user{user}");
            let (arm, used) = split.choose(&unit).unwrap();
            assert_eq!(split.choose(&unit).unwrap().1, used);
            counts[usize::try_from(arm.number).unwrap()] += 1;
        }
        assert_eq!(counts[1], 0);
        let share = f64::from(counts[0]) / 20_000.0;
        assert!((share - 0.75).abs() < 0.015, "{share}");
        assert!(experiment(&[0.0]).choose("x").is_none());
        assert!(experiment(&[]).choose("x").is_none());
    }

    #[test]
    fn another_key_splits_otherwise() {
        let (one, mut two) = (experiment(&[1.0, 1.0]), experiment(&[1.0, 1.0]));
        two.key = [8; 32];
        let differ = (0..1000)
            .filter(|n| {
                let unit = n.to_string();
                one.choose(&unit).unwrap().0.name != two.choose(&unit).unwrap().0.name
            })
            .count();
        assert!((400..600).contains(&differ), "{differ}");
    }
}
