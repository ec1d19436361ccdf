//! The Lua scripts, as the program gives them to Redis.

use sha1::{Digest, Sha1};

/// The text of a script as the program gives it to Redis: the file, after its header what it takes from `lua/lib/`.
pub fn text(name: &str) -> String {
    let read = |name: &str| {
        std::fs::read_to_string(format!("{}/lua/{name}.lua", env!("CARGO_MANIFEST_DIR"))).unwrap()
    };
    let file = read(name);
    let Some((head, body)) = file.split_once("\n-- Lib: ") else {
        return file;
    };
    let (names, body) = body.split_once('\n').unwrap();
    let lib: String = names
        .split(", ")
        .map(|name| read(&format!("lib/{name}")))
        .collect();
    format!("{head}\n-- Lib: {names}\n{lib}{body}")
}

/// The digest by which `EVALSHA` calls that text.
pub fn digest(text: &str) -> String {
    let digest = Sha1::digest(text);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All scripts: name and text.
pub fn all() -> Vec<(String, String)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/lua");
    let files = std::fs::read_dir(folder).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let scripts = paths.filter(|path| path.extension().is_some_and(|ext| ext == "lua"));
    scripts
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .map(|name| (name.clone(), text(&name)))
        .collect()
}
