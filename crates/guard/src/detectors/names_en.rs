//! Personal names as English writes them: by frequent given names and surnames, and by what
//! stands before (Mr, Dear, name:).
//!
//! The lists are short and were written by hand. Many names are words (Will, Grace, May; Brown,
//! Price, Field): two of those beside each other are a name only where something says so.

use std::cell::LazyCell;
use std::collections::HashMap;
use std::sync::LazyLock;

use super::text::{is_word, last_chars};
use super::{Candidate, Detector, Verdict, View};

pub(super) static PERSON_NAME: Detector = Detector {
    name: "person_name",
    label: "PERSON",
    view: View::Raw,
    patterns: &[
        r"[A-Z][a-z]{1,14}(?:-[A-Z][a-z]{1,14})?(?: [A-Z]\.)?(?: (?:[A-Z][a-z]{1,15}|O['’][A-Z][a-z]{2,12}|Ma?c[A-Z][a-z]{2,12})(?:-[A-Z][a-z]{1,15})?){0,2}",
    ],
    max_chars: 64,
    at_word: true,
    validate,
};

const GIVEN: &str = "aaron adam adrian alan albert alex alexander alice alicia allison amanda amber amy andrea andrew angela \
anna anne anthony antonio arthur ashley barbara benjamin bernard beth betty beverly bob bobby bonnie bradley brandon brenda \
brian bruce bryan caleb cameron carl carla carlos carol caroline carolyn catherine charles charlotte cheryl chris christian \
christina christine christopher cindy claire clara connor craig crystal cynthia daniel danielle david deborah debra dennis \
diana diane donald donna dorothy douglas dylan edward eleanor elena elizabeth ellen emily emma eric ethan eugene evelyn \
fiona frances francis frank gabriel gary george gerald gloria gordon greg gregory hannah harold harry heather helen henry \
howard hugh ian irene isaac isabella jack jacob jacqueline james jamie jane janet janice jason jean jeff jeffrey jennifer \
jeremy jerry jesse jessica jill jim joan joe joel john johnny jonathan jordan jose joseph joshua joyce juan judith judy \
julia julian julie justin karen karl kate katherine kathleen kathryn katie keith kelly kenneth kevin kimberly kyle larry \
laura lauren laurence lawrence leah leonard leslie liam linda lisa logan lori louis louise lucas lucy luis luke madison \
margaret maria marie marilyn mark martha martin mary matthew megan melissa michael michelle miguel mike mohammed muhammad \
nancy naomi natalie nathan nicholas nicole noah olivia oliver oscar pamela patricia patrick paul paula peter philip phillip \
rachel ralph randy raymond rebecca richard robert robin roger ronald rosa ruth ryan samantha samuel sandra sara sarah scott \
sean sharon shirley simon sophia sophie stacy stanley stephanie stephen steve steven stuart susan suzanne sylvia tara teresa \
terry theodore theresa thomas tiffany tim timothy todd tom tony tracy tyler valerie vanessa vera victor victoria vincent \
virginia walter wayne wendy william zachary \
aiko akira haruka haruto hiroshi hiroki kenji kenta kazuo keiko makoto masato mei misaki naoki sakura satoshi shinji shota \
takashi taro hanako tomoko yoko yuki yumi yusuke wei ming priya raj rahul fatima ahmed ali omar ivan olga dmitri pierre \
hans ingrid lars sven giulia marco luca sofia mateo diego";

const SURNAMES: &str = "adams alexander allen anderson andrews armstrong arnold bailey baker barnes bennett berry boyd bradley \
brooks bryant burke burns butler campbell carpenter carroll carter chapman chavez clark clarke cole coleman collins cooper \
cox crawford cruz cunningham daniels davies davis diaz dixon douglas duncan dunn edwards elliott ellis evans ferguson \
fernandez fisher fleming fletcher flores foster fox franklin freeman fuller garcia gardner gibson gilbert gomez gonzales \
gonzalez gordon graham grant griffin gutierrez hall hamilton hansen harper harris harrison hart harvey hawkins hayes \
henderson henry hernandez hicks hoffman holland holmes howard howell hudson hughes hunt hunter jackson jacobs jenkins \
jensen johnson johnston jones kelley kelly kennedy khan kim knight kumar lane larson lawrence lawson lee lewis lopez lynch \
macdonald marshall martin martinez mason matthews mcarthur mccarthy mcdonald mckenzie mendoza meyer miller mills mitchell \
montgomery moore morales moreno morgan morris morrison murphy murray myers nelson newman nguyen nichols obrien oconnor \
olson oliver ortiz owens palmer parker patel patterson payne pearson perez perkins perry peters peterson phillips pierce \
porter powell ramirez ramos reed reid reyes reynolds richards richardson riley rivera roberts robertson robinson rodriguez \
rogers romero rose ross ruiz russell ryan sanchez sanders schmidt schneider schultz scott shaw silva simmons simpson sims \
singh smith snyder spencer stephens stevens stewart stone sullivan taylor thomas thompson torres tucker turner vargas \
vasquez wagner walker wallace walsh ward warren washington watkins watson weaver webb weber welch west wheeler williams \
williamson willis wilson wright yang \
sato suzuki takahashi tanaka watanabe ito yamamoto nakamura kobayashi kato yoshida yamada sasaki yamaguchi matsumoto inoue \
kimura hayashi shimizu saito mori abe ikeda hashimoto yamashita ishikawa nakajima maeda fujita ogawa goto okada hasegawa \
murakami kondo ishii wang zhang liu chen huang zhao zhou sharma gupta ivanov petrov muller rossi ferrari dubois";

/// Names that are words, months, places or firms at least as often.
const ALSO_WORDS: &str = "mark frank jack grant rose robin jean bob bill will grace hope joy faith may april june dawn summer \
hunter chase amber crystal ruth robin jordan madison virginia victoria georgia charlotte austin dallas florence paris \
stone west lane fox knight reed rose hunt hall mills price young king white black green brown long hill park field \
washington lincoln jackson franklin hamilton hudson holland chapman carpenter baker butler cooper fisher gardner hunter \
knight mason parker porter taylor turner walker ward weaver wright freeman newman sims berry cox day page bell banks \
stanley wayne logan luna sofia diego yuki sakura ming oliver lee kim russell ali raj marco luca gordon scott tyler";

/// What makes the next capitalised words a person.
const TITLES: &[&str] = &[
    "Mr",
    "Mr.",
    "Mrs",
    "Mrs.",
    "Ms",
    "Ms.",
    "Miss",
    "Mx",
    "Mx.",
    "Dr",
    "Dr.",
    "Prof",
    "Prof.",
    "Professor",
    "Sir",
    "Madam",
    "MR",
    "MRS",
    "MS",
    "DR",
];

/// What says that a name comes.
const LABELS: &[&str] = &[
    "name",
    "name is",
    "names",
    "i am",
    "i'm",
    "this is",
    "dear",
    "signed",
    "patient",
    "customer",
    "employee",
    "contact",
    "regards,",
    "sincerely,",
    "cardholder",
    "account holder",
    "recipient",
    "manager",
    "colleague",
    "my wife",
    "my husband",
    "my friend",
    "my boss",
    "brother",
    "sister",
    "hi",
    "hello",
    "contact person",
    "beneficiary",
    "applicant",
    "candidate",
    "attn",
    "attention",
    "author",
    "client",
    "tenant",
    "student",
    "user",
    "spoke to",
    "spoke with",
    "met with",
    "call me",
];

/// Words that follow a title or a greeting and are no name.
const NO_NAMES: &str = "customer sir madam team all everyone there world friend friends user support hiring manager assistant \
president minister doctor professor editor colleagues valued committee members the a an to is my not sorry happy glad going \
monday tuesday wednesday thursday friday saturday sunday january february march september october november december \
english japanese chinese french german spanish claude chatgpt gemini alexa siri google amazon microsoft apple server client \
error name first last full string type file host project model table column key value this that it what i you we they santa \
jesus god python java rust linux windows pepper kafka docker redis postgres";

/// What a word is known as.
#[derive(Clone, Copy, Default)]
struct Known {
    given: bool,
    surname: bool,
    also_word: bool,
    no_name: bool,
}

static KNOWN: LazyLock<HashMap<&'static str, Known>> = LazyLock::new(|| {
    let mut known: HashMap<&'static str, Known> = HashMap::new();
    let mut add = |list: &'static str, set: fn(&mut Known)| {
        for word in list.split_ascii_whitespace() {
            set(known.entry(word).or_default());
        }
    };
    add(GIVEN, |known| known.given = true);
    add(SURNAMES, |known| known.surname = true);
    add(ALSO_WORDS, |known| known.also_word = true);
    add(NO_NAMES, |known| known.no_name = true);
    known
});

fn known(word: &str) -> Known {
    KNOWN.get(word).copied().unwrap_or_default()
}

fn validate(found: &Candidate<'_>) -> Option<Verdict> {
    if found
        .previous()
        .is_some_and(|c| is_word(c) || matches!(c, '-' | '\'' | '’' | '/' | '@' | '#' | '.'))
    {
        return None;
    }
    let after_title = TITLES.contains(&last_word(found.before));
    let label = LazyCell::new(|| found.tail().label_ends(LABELS));
    let parts = parts_of(found.text);
    let words: Vec<String> = parts.iter().map(|(word, _)| word.to_lowercase()).collect();
    // "James Smith Called" is James Smith, so shorter tellings are tried as well.
    (1..=parts.len()).rev().find_map(|count| {
        let (_, end) = parts[count - 1];
        let next = found.next(end);
        if next.is_some_and(|c| is_word(c) || c == '@' || c == '(') {
            return None;
        }
        let score = is_name(&words[..count], after_title, &label)?;
        found.part(end, score)
    })
}

/// The words of a candidate, each with its end; an initial is no word of its own.
fn parts_of(text: &str) -> Vec<(&str, usize)> {
    let mut at = 0;
    let mut parts = Vec::new();
    for word in text.split(' ') {
        let end = at + word.len();
        if !word.ends_with('.') {
            parts.push((word, end));
        }
        at = end + 1;
    }
    parts
}

/// The last word before a candidate, if only a space is between. In its case: `3.5 ms. No` has
/// no title in it.
fn last_word(before: &str) -> &str {
    let Some(before) = before.strip_suffix(' ') else {
        return "";
    };
    let near = last_chars(before, 12);
    near.rsplit(|c: char| !(is_word(c) || c == '.'))
        .next()
        .unwrap_or_default()
}

/// How sure it is that words are a name. The label is asked for last, because it costs most.
fn is_name(
    words: &[String],
    after_title: bool,
    label: &LazyCell<bool, impl FnOnce() -> bool>,
) -> Option<f32> {
    let (first, last) = (words.first()?, words.last()?);
    // Anna-Maria is an Anna.
    let given = known(first.split('-').next()?).given;
    let irish = last.starts_with("o'") || last.starts_with("o’") || last.starts_with("mc");
    let surname = words.len() > 1 && (irish || known(last).surname);
    if !(given || surname || after_title) {
        return None;
    }
    let is_title = TITLES.iter().any(|title| title.eq_ignore_ascii_case(first));
    if is_title || words.iter().any(|word| known(word).no_name) {
        return None;
    }
    let doubtful = known(first).also_word && known(last).also_word;
    match (words.len(), given, surname) {
        _ if after_title && words.len() <= 2 => Some(0.9),
        (2.., true, true) if !doubtful => Some(if **label { 0.95 } else { 0.85 }),
        (2.., true, _) | (2.., _, true) if **label => Some(0.85),
        (1, true, _) if !known(first).also_word && **label => Some(0.7),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::check;
    use super::PERSON_NAME;

    #[test]
    fn names() {
        for marked in [
            "I met ⟦James Smith⟧ yesterday.",
            "My name is ⟦Sarah Connor⟧.",
            "Dear ⟦Emily⟧, thank you",
            "it took 3.5 ms. No answer came",
            "Mr. ⟦Bond⟧ and Dr ⟦Jane Doe⟧ agreed",
            "⟦John Q. Wilson⟧ called",
            "Contact: ⟦Mary O'Brien⟧, ext. 5",
            "name: ⟦Taro Yamada⟧",
            "⟦Patrick McCarthy⟧ wrote",
            "⟦Anna-Maria Garcia⟧ signed",
            "Hello World, Dear Customer, Dear Sir",
            "Morgan Stanley, Virginia West, Grace Hopper Park",
            "Hi Claude, I am Happy to Help",
            "The Quick Brown Fox; New York Times; Rust Foundation",
            "Jordan River and Amber Stone",
            "class JamesSmith(Base): James.smith",
        ] {
            check(&PERSON_NAME, marked);
        }
    }
}
