//! Reading of vector files.

use std::cell::RefCell;
use std::collections::BTreeMap;

/// One `[[vector]]`: strings and integers by name.
pub struct Vector(BTreeMap<String, toml::Value>);

/// A file whose vectors must all be accounted for: used, or skipped for a reason.
pub struct File {
    name: &'static str,
    vectors: Vec<Vector>,
    seen: RefCell<Vec<String>>,
}

impl File {
    pub fn open(name: &'static str) -> Self {
        let path = format!(
            "{}/../tests/vectors/{name}.toml",
            env!("CARGO_MANIFEST_DIR")
        );
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut file: BTreeMap<String, Vec<BTreeMap<String, toml::Value>>> =
            toml::from_str(&text).unwrap();
        let vectors = file
            .remove("vector")
            .unwrap()
            .into_iter()
            .map(Vector)
            .collect();
        Self {
            name,
            vectors,
            seen: RefCell::default(),
        }
    }

    /// The vectors that `belongs` picks, noted as used. There must be some.
    pub fn pick(&self, belongs: impl Fn(&Vector) -> bool) -> Vec<&Vector> {
        let picked: Vec<&Vector> = self
            .vectors
            .iter()
            .filter(|vector| belongs(vector))
            .collect();
        assert!(!picked.is_empty(), "{}: nothing picked", self.name);
        self.seen
            .borrow_mut()
            .extend(picked.iter().map(|vector| vector.text("name")));
        picked
    }

    pub fn skip(&self, why: &str, belongs: impl Fn(&Vector) -> bool) {
        for vector in self.pick(belongs) {
            println!("{}: {} skipped: {why}", self.name, vector.text("name"));
        }
    }

    /// To be called at the end.
    pub fn nothing_left(&self) {
        let seen = self.seen.borrow();
        let left: Vec<String> = self
            .vectors
            .iter()
            .map(|vector| vector.text("name"))
            .filter(|name| !seen.contains(name))
            .collect();
        assert!(
            left.is_empty(),
            "{}: neither used nor skipped: {left:?}",
            self.name
        );
        println!("{}: {} vectors", self.name, self.vectors.len());
    }
}

impl Vector {
    pub fn has(&self, field: &str) -> bool {
        self.0.contains_key(field)
    }

    pub fn text(&self, field: &str) -> String {
        self.0[field].as_str().unwrap().to_owned()
    }

    pub fn number(&self, field: &str) -> u64 {
        self.0[field].as_integer().unwrap().try_into().unwrap()
    }

    pub fn bytes(&self, field: &str) -> Vec<u8> {
        let text = self.text(field);
        assert!(text.len().is_multiple_of(2), "{field}");
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    }

    pub fn array<const N: usize>(&self, field: &str) -> [u8; N] {
        self.bytes(field)
            .try_into()
            .unwrap_or_else(|_| panic!("{}: {field}", self.text("name")))
    }

    pub fn is(&self, name: &str) -> bool {
        self.text("name") == name
    }

    pub fn starts(&self, prefix: &str) -> bool {
        self.text("name").starts_with(prefix)
    }
}
