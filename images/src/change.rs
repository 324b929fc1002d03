//! `import -c`: lines of a Dockerfile applied to an empty configuration.

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// Applies the lines in their order; gives the configuration's `config` object.
pub(crate) fn apply(changes: &[String]) -> Result<Value> {
    let mut config = Map::new();
    for change in changes {
        one(&mut config, change).map_err(|why| Error::BadChange { change: change.clone(), why })?;
    }
    Ok(config.into())
}

fn one(config: &mut Map<String, Value>, change: &str) -> Result<(), String> {
    let change = change.trim();
    let (instruction, rest) = change.split_once(char::is_whitespace).unwrap_or((change, ""));
    let rest = rest.trim();
    let instruction = instruction.to_ascii_uppercase();
    if rest.is_empty() {
        return Err(format!("{instruction} needs a value"));
    }
    match instruction.as_str() {
        "CMD" => set(config, "Cmd", command(rest)),
        "ENTRYPOINT" => set(config, "Entrypoint", command(rest)),
        "USER" => set(config, "User", one_word("USER", rest)?.into()),
        "STOPSIGNAL" => set(config, "StopSignal", one_word("STOPSIGNAL", rest)?.into()),
        "WORKDIR" => {
            let before = config.get("WorkingDir").and_then(Value::as_str).unwrap_or("/");
            let path = if rest.starts_with('/') { rest.to_owned() } else { format!("{before}/{rest}") };
            let clean = crate::beneath::clean(path.as_bytes())?;
            set(config, "WorkingDir", format!("/{}", String::from_utf8_lossy(&clean)).into());
        }
        "VOLUME" => {
            let paths: Vec<String> = match serde_json::from_str(rest) {
                Ok(paths) => paths,
                Err(_) => words(rest)?,
            };
            paths.into_iter().for_each(|path| insert(config, "Volumes", path, json!({})));
        }
        "EXPOSE" => {
            for port in words(rest)? {
                expose(config, &port)?;
            }
        }
        "LABEL" => pairs(rest)?.into_iter().for_each(|(name, value)| insert(config, "Labels", name, value.into())),
        "ENV" => {
            let mut env: Vec<Value> = config.get("Env").and_then(Value::as_array).cloned().unwrap_or_default();
            for (name, value) in pairs(rest)? {
                let prefix = format!("{name}=");
                env.retain(|known| !known.as_str().is_some_and(|known| known.starts_with(&prefix)));
                env.push(format!("{prefix}{value}").into());
            }
            set(config, "Env", env.into());
        }
        _ => {
            return Err(
                "only CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME and WORKDIR can be changed".into(),
            );
        }
    }
    Ok(())
}

fn set(config: &mut Map<String, Value>, field: &str, value: Value) {
    config.insert(field.to_owned(), value);
}

/// Adds to one of the objects that Go writes for a set.
fn insert(config: &mut Map<String, Value>, field: &str, key: String, value: Value) {
    if let Some(set) = config.entry(field).or_insert_with(|| json!({})).as_object_mut() {
        set.insert(key, value);
    }
}

/// A JSON list, or a line for the shell.
fn command(rest: &str) -> Value {
    match serde_json::from_str::<Vec<String>>(rest) {
        Ok(list) => list.into(),
        Err(_) => json!(["/bin/sh", "-c", rest]),
    }
}

fn one_word(instruction: &str, rest: &str) -> Result<String, String> {
    match &words(rest)?[..] {
        [word] => Ok(word.clone()),
        _ => Err(format!("{instruction} takes one word")),
    }
}

/// `80`, `80/udp`, `8000-8010/tcp`
fn expose(config: &mut Map<String, Value>, port: &str) -> Result<(), String> {
    let (numbers, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let bad = || format!("{port:?} is no port; write 80, 53/udp or 8000-8010/tcp");
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(bad());
    }
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let number = |text: &str| text.parse::<u16>().ok().filter(|number| *number > 0).ok_or_else(bad);
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(bad());
    }
    for number in first..=last {
        insert(config, "ExposedPorts", format!("{number}/{protocol}"), json!({}));
    }
    Ok(())
}

/// `a=1 b="two words"`, or docker's old `a the rest`.
fn pairs(rest: &str) -> Result<Vec<(String, String)>, String> {
    let words = words(rest)?;
    if !words.first().is_some_and(|word| word.contains('=')) {
        let (name, value) = rest.split_once(char::is_whitespace).ok_or("write NAME=value")?;
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: String| {
        let (name, value) = word.split_once('=').ok_or_else(|| format!("{word:?} is no NAME=value"))?;
        if name.is_empty() {
            return Err("a name is empty".to_owned());
        }
        Ok((name.to_owned(), value.to_owned()))
    };
    words.into_iter().map(pair).collect()
}

/// Splits at spaces; quotes and backslashes as in a Dockerfile.
fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().push(letters.next().unwrap_or('\\')),
            (letter, Some(open)) if letter == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (letter, None) if letter.is_whitespace() => words.extend(word.take()),
            (letter, _) => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err("a quote isn't closed".into());
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(changes: &[&str]) -> Result<Value> {
        apply(&changes.iter().map(|change| (*change).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn changes_are_written_as_a_dockerfile_has_them() {
        let config = config(&[
            r#"CMD ["a", "b c"]"#,
            "entrypoint exec /x -y",
            r#"ENV A=1 B="two words" C=x\ y"#,
            "ENV A the rest",
            "EXPOSE 80 53/UDP 81-82/tcp",
            "LABEL k=v",
            "USER app:1",
            r#"VOLUME ["/a"]"#,
            "VOLUME /b /c",
            "WORKDIR /w",
            "WORKDIR sub/..//x",
            "STOPSIGNAL SIGINT",
        ]);
        assert_eq!(
            config.unwrap(),
            json!({
                "Cmd": ["a", "b c"], "Entrypoint": ["/bin/sh", "-c", "exec /x -y"],
                "Env": ["B=two words", "C=x y", "A=the rest"],
                "ExposedPorts": {"80/tcp": {}, "53/udp": {}, "81/tcp": {}, "82/tcp": {}},
                "Labels": {"k": "v"}, "User": "app:1", "Volumes": {"/a": {}, "/b": {}, "/c": {}},
                "WorkingDir": "/w/x", "StopSignal": "SIGINT",
            })
        );
    }

    #[test]
    fn what_is_no_change_is_refused() {
        for bad in [
            "",
            "CMD",
            "RUN x",
            "EXPOSE 0",
            "EXPOSE 70000",
            "EXPOSE 9-8",
            "EXPOSE 80/x",
            "ENV A",
            "ENV =1",
            "USER a b",
            "LABEL \"a",
        ] {
            let error = config(&[bad]).expect_err(bad).to_string();
            assert!(error.starts_with("invalid change"), "{error}");
        }
    }
}
