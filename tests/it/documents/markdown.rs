//! As much of Markdown as the documents use: headings, links, fenced blocks, code in a line.

use std::collections::{BTreeSet, HashMap};

const NOT_RUN: &str = "<!-- not run:";

pub(super) struct Document {
    /// What a link may name after `#`.
    pub anchors: BTreeSet<String>,
    /// Where links lead, with their lines.
    pub links: Vec<(usize, String)>,
    /// Code between backquotes, with its lines.
    pub spans: Vec<(usize, String)>,
    pub blocks: Vec<Block>,
    /// Notes that stand above no block, or give no reason.
    idle: Vec<usize>,
}

pub(super) struct Block {
    /// The line of its fence, from 1.
    pub line: usize,
    pub language: String,
    pub text: String,
    /// Why it is not run.
    pub not_run: Option<String>,
    /// Whether only blank lines are between it and the block before it.
    follows: bool,
}

impl Block {
    pub(super) fn is_shell(&self) -> bool {
        matches!(self.language.as_str(), "sh" | "console")
    }
}

/// What a shell is given, and what it has to print.
#[derive(Debug)]
pub(super) struct Step {
    pub line: usize,
    pub command: String,
    pub answer: Answer,
}

#[derive(Debug)]
pub(super) enum Answer {
    /// Nothing is said of it: it has to succeed.
    Success,
    Json(String),
    Text(String),
}

impl Document {
    pub(super) fn parse(text: &str) -> Self {
        let mut document = Self {
            anchors: BTreeSet::new(),
            links: Vec::new(),
            spans: Vec::new(),
            blocks: Vec::new(),
            idle: Vec::new(),
        };
        let mut slugs: HashMap<String, usize> = HashMap::new();
        let mut not_run: Option<(usize, String)> = None;
        let mut follows = false;
        let mut open = None;
        let mut lines = (1..).zip(text.lines());
        while let Some((line, text)) = lines.next() {
            if let Some(language) = text.strip_prefix("```") {
                let mut block = Block {
                    line,
                    language: language.trim().to_owned(),
                    text: String::new(),
                    not_run: not_run.take().map(|(_, why)| why),
                    follows,
                };
                for (_, text) in lines.by_ref().take_while(|(_, text)| *text != "```") {
                    block.text.push_str(text);
                    block.text.push('\n');
                }
                document.blocks.push(block);
                follows = true;
                continue;
            }
            if text.trim().is_empty() {
                open = None;
                continue;
            }
            follows = false;
            if let Some((line, _)) = not_run.take() {
                document.idle.push(line);
            }
            if let Some(why) = text.strip_prefix(NOT_RUN) {
                let why = why.trim_end().trim_end_matches("-->").trim().to_owned();
                not_run = Some((line, why));
                continue;
            }
            let level = text.bytes().take_while(|byte| *byte == b'#').count();
            if let Some(title) = text.get(level..).filter(|_| level > 0)
                && let Some(title) = title.strip_prefix(' ')
            {
                let slug = slug(title);
                let seen = slugs.entry(slug.clone()).or_default();
                document.anchors.insert(match *seen {
                    0 => slug,
                    n => format!("{slug}-{n}"),
                });
                *seen += 1;
            }
            document.line(line, text, &mut open);
        }
        document.idle.extend(not_run.map(|(line, _)| line));
        document
    }

    /// Takes code and links of a line that is in no block. `open`: code that began on the line before it.
    fn line(&mut self, line: usize, text: &str, open: &mut Option<String>) {
        let mut rest = String::new();
        let mut parts = text.split('`').peekable();
        while let Some(part) = parts.next() {
            let is_last = parts.peek().is_none();
            match open.take() {
                None => {
                    rest.push_str(part);
                    *open = (!is_last).then(String::new);
                }
                Some(code) if is_last => *open = Some(format!("{code}{part} ")),
                Some(code) => self.spans.push((line, code + part)),
            }
        }
        for part in rest.split("](").skip(1) {
            let target = part.split(')').next().unwrap_or_default();
            self.links.push((line, target.to_owned()));
        }
        // [name]: target
        let named = rest.strip_prefix('[').and_then(|r| r.split_once("]: "));
        if let Some((_, target)) = named {
            self.links.push((line, target.trim().to_owned()));
        }
    }

    /// Notes without a block or a reason, and blocks of which nobody knows whether they are to be run.
    pub(super) fn misplaced(&self) -> Vec<(usize, String)> {
        let idle = self.idle.iter();
        let idle = idle.map(|line| (*line, "this note stands above no block".to_owned()));
        let blocks = self.blocks.iter().filter_map(|block| {
            let why = match &block.not_run {
                _ if matches!(block.language.as_str(), "" | "bash" | "shell") => {
                    "a block is in sh or console where it is run, and names another language where it is not"
                }
                Some(_) if !block.is_shell() => "this block would not be run anyway",
                Some(why) if why.is_empty() => "it is not run, and nothing says why",
                _ => return None,
            };
            Some((block.line, why.to_owned()))
        });
        idle.chain(blocks).collect()
    }

    /// What is to be run, in order.
    pub(super) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (index, block) in self.blocks.iter().enumerate() {
            if block.not_run.is_some() {
                continue;
            }
            let line = block.line;
            match block.language.as_str() {
                "sh" => {
                    let next = self.blocks.get(index + 1).filter(|next| next.follows);
                    let answer = match next.map(|next| (next.language.as_str(), &next.text)) {
                        Some(("json", text)) => Answer::Json(text.clone()),
                        Some(("text", text)) => Answer::Text(text.clone()),
                        _ => Answer::Success,
                    };
                    let command = block.text.clone();
                    steps.push(Step {
                        line,
                        command,
                        answer,
                    });
                }
                "console" => steps.extend(console(block)),
                _ => {}
            }
        }
        steps
    }
}

/// The commands of a block that shows a terminal.
pub(super) fn console(block: &Block) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (line, text) in (block.line + 1..).zip(block.text.lines()) {
        match (text.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push(Step {
                line,
                command: format!("{command}\n"),
                answer: Answer::Text(String::new()),
            }),
            (None, Some(Step { answer, .. })) => {
                if let Answer::Text(answer) = answer {
                    answer.push_str(text);
                    answer.push('\n');
                }
            }
            (None, None) => {}
        }
    }
    steps
}

/// What GitHub makes of a heading: lower case, no punctuation, hyphens for blanks.
fn slug(title: &str) -> String {
    let kept = title.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        c if c.is_alphanumeric() => Some(c),
        _ => None,
    });
    kept.flat_map(char::to_lowercase).collect()
}
