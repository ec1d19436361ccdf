//! What a setting may be: a rule reads it, prints it and describes itself, so that a row of `settings` says all of a setting.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use ipnet::IpNet;

use super::Secret;
use super::printer::Printer;
use super::schema::{Row, Rule, Settings};
use super::table::Table;
use super::tree::TreeNode;

fn row(key: &'static str, help: String, form: impl Into<String>) -> Row {
    Row {
        key,
        form: form.into(),
        help,
        secret: false,
        parts: Vec::new(),
    }
}

/// A whole number, with its default.
pub(crate) struct Number(pub u64, pub RangeInclusive<u64>);

/// A whole number whose default follows from other settings. The rule answers 0, which is outside of the range; the
/// code that reads the section puts the default in its place.
pub(crate) struct Derived(pub RangeInclusive<u64>, pub &'static str);

/// A whole number that must be given.
pub(crate) struct NeededNumber(pub RangeInclusive<u64>);

fn number(table: &mut Table<'_>, key: &str, range: &RangeInclusive<u64>) -> Option<u64> {
    match table.node(key)? {
        TreeNode::Value(toml::Value::Integer(number)) => {
            let number = u64::try_from(number).ok();
            let found = number.filter(|number| range.contains(number));
            if found.is_none() {
                let (low, high) = (range.start(), range.end());
                table.problem(key, format_args!("must be {low} to {high}"));
            }
            found
        }
        _ => {
            table.problem(key, "must be an integer");
            None
        }
    }
}

fn within(range: &RangeInclusive<u64>) -> String {
    format!("{} to {}", range.start(), range.end())
}

impl<T: TryFrom<u64> + Display> Rule<T> for Number {
    fn read(&self, table: &mut Table<'_>, key: &str) -> Option<T> {
        let number = number(table, key, &self.1).unwrap_or(self.0);
        T::try_from(number).ok()
    }

    fn show(&self, printer: &mut Printer, key: &str, value: &T) {
        printer.plain(key, value);
    }

    fn row(&self, key: &'static str, help: String) -> Row {
        row(
            key,
            help,
            format!("{}, default {}", within(&self.1), self.0),
        )
    }
}

impl<T: TryFrom<u64> + Display> Rule<T> for Derived {
    fn read(&self, table: &mut Table<'_>, key: &str) -> Option<T> {
        let number = number(table, key, &self.0).unwrap_or(0);
        T::try_from(number).ok()
    }

    fn show(&self, printer: &mut Printer, key: &str, value: &T) {
        printer.plain(key, value);
    }

    fn row(&self, key: &'static str, help: String) -> Row {
        row(
            key,
            help,
            format!("{}, default {}", within(&self.0), self.1),
        )
    }
}

impl Rule<u64> for NeededNumber {
    fn read(&self, table: &mut Table<'_>, key: &str) -> Option<u64> {
        table.needed(key, |table| number(table, key, &self.0))
    }

    fn show(&self, printer: &mut Printer, key: &str, value: &u64) {
        printer.plain(key, value);
    }

    fn row(&self, key: &'static str, help: String) -> Row {
        row(key, help, format!("{}, needed", within(&self.0)))
    }
}

/// A part of a whole, with its default: at least a thousandth, and at most all of it.
pub(crate) struct Fraction(pub f64);

impl Rule<f64> for Fraction {
    fn read(&self, table: &mut Table<'_>, key: &str) -> Option<f64> {
        let Some(node) = table.node(key) else {
            return Some(self.0);
        };
        let fraction = match node {
            TreeNode::Value(toml::Value::Float(fraction)) => fraction,
            TreeNode::Value(toml::Value::Integer(1)) => 1.0,
            // Any other integer is out of range, which is said below.
            TreeNode::Value(toml::Value::Integer(_)) => 0.0,
            _ => {
                table.problem(key, "must be a number");
                return None;
            }
        };
        // NaN is in no range.
        if !(0.001..=1.0).contains(&fraction) {
            table.problem(key, "must be 0.001 to 1");
            return None;
        }
        Some(fraction)
    }

    fn show(&self, printer: &mut Printer, key: &str, value: &f64) {
        printer.plain(key, toml::Value::Float(*value));
    }

    fn row(&self, key: &'static str, help: String) -> Row {
        row(key, help, format!("0.001 to 1, default {}", self.0))
    }
}

/// Says what is wrong with a text.
pub(crate) type TextCheck = fn(&str) -> Result<(), String>;

/// A text, with its default.
pub(crate) struct Text(pub &'static str, pub TextCheck);

impl<T: From<String> + AsRef<std::ffi::OsStr>> Rule<T> for Text {
    fn read(&self, table: &mut Table<'_>, key: &str) -> Option<T> {
        let Some(text) = table.text(key) else {
            return Some(T::from(self.0.to_owned()));
        };
        if let Err(why) = (self.1)(&text) {
            table.problem(key, why);
        }
        Some(T::from(text))
    }

    fn show(&self, printer: &mut Printer, key: &str, value: &T) {
        printer.text(key, &value.as_ref().to_string_lossy());
    }

    fn row(&self, key: &'static str, help: String) -> Row {
        row(key, help, format!("text, default \"{}\"", self.0))
    }
}

/// A text that must be given.
pub(crate) struct NeededText(pub TextCheck);

impl Rule<String> for NeededText {
    fn read(&self, table: &mut Table<'_>, key: &str) -> Option<String> {
        let text = table.needed(key, |table| table.text(key))?;
        match (self.0)(&text) {
            Ok(()) => Some(text),
            Err(why) => {
                table.problem(key, why);
                None
            }
        }
    }

    fn show(&self, printer: &mut Printer, key: &str, value: &String) {
        printer.text(key, value);
    }

    fn row(&self, key: &'static str, help: String) -> Row {
        row(key, help, "text, needed")
    }
}

/// The path of a file that may be left out. Whether it can be read is for the section to say.
pub(crate) struct File;

impl Rule<Option<PathBuf>> for File {
    fn read(&self, table: &mut Table<'_>, key: &str) -> Option<Option<PathBuf>> {
        Some(table.text(key).map(PathBuf::from))
    }

    fn show(&self, printer: &mut Printer, key: &str, value: &Option<PathBuf>) {
        if let Some(file) = value {
            printer.text(key, &file.to_string_lossy());
        }
    }

    fn row(&self, key: &'static str, help: String) -> Row {
        row(key, help, "path of a file, default none")
    }
}

/// One of some words, with its default.
pub(crate) struct Choice<T: 'static>(pub T, pub &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> Choice<T> {
    fn word(&self, value: T) -> &'static str {
        let found = self.1.iter().find(|(_, one)| *one == value);
        found.map_or("", |(word, _)| word)
    }
}

impl<T: Copy + PartialEq> Rule<T> for Choice<T> {
    fn read(&self, table: &mut Table<'_>, key: &str) -> Option<T> {
        let Some(text) = table.text(key) else {
            return Some(self.0);
        };
        let found = self.1.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let words: Vec<String> = self.1.iter().map(|(word, _)| format!("`{word}`")).collect();
            table.problem(key, format_args!("must be {}", words.join(" or ")));
        }
        found.map(|(_, value)| *value)
    }

    fn show(&self, printer: &mut Printer, key: &str, value: &T) {
        printer.text(key, self.word(*value));
    }

    fn row(&self, key: &'static str, help: String) -> Row {
        let words: Vec<String> = self
            .1
            .iter()
            .map(|(word, _)| format!("\"{word}\""))
            .collect();
        let default = self.word(self.0);
        row(
            key,
            help,
            format!("{}, default \"{default}\"", words.join(" or ")),
        )
    }
}

/// A list of texts, with its default, and what is wrong with one of them.
pub(crate) struct Texts(pub &'static [&'static str], pub TextCheck);

impl Rule<Vec<String>> for Texts {
    fn read(&self, table: &mut Table<'_>, key: &str) -> Option<Vec<String>> {
        if !table.has(key) {
            return Some(self.0.iter().map(|text| (*text).to_owned()).collect());
        }
        let texts = table.texts(key);
        // The texts of a list are not named, so the first is enough.
        if let Some(why) = texts.iter().find_map(|text| (self.1)(text).err()) {
            table.problem(key, why);
        }
        Some(texts)
    }

    fn show(&self, printer: &mut Printer, key: &str, value: &Vec<String>) {
        printer.list(key, value.iter().map(String::as_str));
    }

    fn row(&self, key: &'static str, help: String) -> Row {
        row(key, help, format!("list of texts, default {:?}", self.0))
    }
}

/// Networks such as `10.0.0.0/8`; an address alone is a network of one. None by default.
pub(crate) struct Networks;

impl Rule<Vec<IpNet>> for Networks {
    fn read(&self, table: &mut Table<'_>, key: &str) -> Option<Vec<IpNet>> {
        let texts = table.texts(key).into_iter().enumerate();
        let parsed = texts.filter_map(|(index, text)| {
            let network = text
                .parse::<IpNet>()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            if network.is_err() {
                let key = format!("{key}[{index}]");
                table.problem(&key, "must be an address or a network such as `10.0.0.0/8`");
            }
            network.ok()
        });
        Some(parsed.collect())
    }

    fn show(&self, printer: &mut Printer, key: &str, value: &Vec<IpNet>) {
        let networks: Vec<String> = value.iter().map(ToString::to_string).collect();
        printer.list(key, networks.iter().map(String::as_str));
    }

    fn row(&self, key: &'static str, help: String) -> Row {
        row(key, help, "list of addresses and networks, default []")
    }
}

/// A secret that must be given.
pub(crate) struct NeededSecret;

impl Rule<Secret> for NeededSecret {
    fn read(&self, table: &mut Table<'_>, key: &str) -> Option<Secret> {
        table.needed(key, |table| table.secret(key))
    }

    fn show(&self, printer: &mut Printer, key: &str, _: &Secret) {
        printer.secret(key);
    }

    fn secrets<'a>(&self, key: &str, value: &'a Secret) -> Vec<(String, &'a Secret)> {
        vec![(key.to_owned(), value)]
    }

    fn row(&self, key: &'static str, help: String) -> Row {
        Row {
            secret: true,
            ..row(key, help, "text, needed")
        }
    }
}

/// A secret that may be left out.
pub(crate) struct OptionalSecret(pub TextCheck);

impl Rule<Option<Secret>> for OptionalSecret {
    fn read(&self, table: &mut Table<'_>, key: &str) -> Option<Option<Secret>> {
        let secret = table.secret(key);
        if let Some(Err(why)) = secret.as_ref().map(|secret| (self.0)(&secret.0)) {
            table.problem(key, why);
        }
        Some(secret)
    }

    fn show(&self, printer: &mut Printer, key: &str, value: &Option<Secret>) {
        if value.is_some() {
            printer.secret(key);
        }
    }

    fn secrets<'a>(&self, key: &str, value: &'a Option<Secret>) -> Vec<(String, &'a Secret)> {
        let secret = value.as_ref().map(|secret| (key.to_owned(), secret));
        secret.into_iter().collect()
    }

    fn row(&self, key: &'static str, help: String) -> Row {
        Row {
            secret: true,
            ..row(key, help, "text, default none")
        }
    }
}

/// A list of secrets; none by default.
pub(crate) struct Secrets;

/// A list of secrets of which there must be one.
pub(crate) struct NeededSecrets;

impl Rule<Vec<Secret>> for Secrets {
    fn read(&self, table: &mut Table<'_>, key: &str) -> Option<Vec<Secret>> {
        Some(table.secrets(key))
    }

    fn show(&self, printer: &mut Printer, key: &str, value: &Vec<Secret>) {
        printer.secrets(key, value.len());
    }

    fn secrets<'a>(&self, key: &str, value: &'a Vec<Secret>) -> Vec<(String, &'a Secret)> {
        let secrets = value.iter().enumerate();
        secrets
            .map(|(index, secret)| (format!("{key}[{index}]"), secret))
            .collect()
    }

    fn row(&self, key: &'static str, help: String) -> Row {
        Row {
            secret: true,
            ..row(key, help, "list of texts, default []")
        }
    }
}

impl Rule<Vec<Secret>> for NeededSecrets {
    fn read(&self, table: &mut Table<'_>, key: &str) -> Option<Vec<Secret>> {
        table.needed(key, |table| {
            let secrets = table.secrets(key);
            (!secrets.is_empty()).then_some(secrets)
        })
    }

    fn show(&self, printer: &mut Printer, key: &str, value: &Vec<Secret>) {
        Secrets.show(printer, key, value);
    }

    fn secrets<'a>(&self, key: &str, value: &'a Vec<Secret>) -> Vec<(String, &'a Secret)> {
        Secrets.secrets(key, value)
    }

    fn row(&self, key: &'static str, help: String) -> Row {
        Row {
            secret: true,
            ..row(key, help, "list of texts, needed")
        }
    }
}

/// A table on the line of its key.
pub(crate) struct Inline;

impl<T: Settings> Rule<T> for Inline {
    fn read(&self, table: &mut Table<'_>, key: &str) -> Option<T> {
        T::read_all(table.table_or_empty(key))
    }

    fn show(&self, printer: &mut Printer, key: &str, value: &T) {
        printer.inline(key, |parts| value.show(parts));
    }

    fn row(&self, key: &'static str, help: String) -> Row {
        Row {
            parts: T::rows(),
            ..row(key, help, "table")
        }
    }
}
