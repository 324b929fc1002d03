//! Go templates for `--format`, with docker's functions and docker's error texts.

use gtmpl_ng::{Context, Limits, StructuredError, Value};

use super::functions;
use super::structs::{self, Insertions};

/// A template that was read.
pub struct Template {
    /// As the engine reads it: every action's result goes through our own printing.
    text: String,
    /// What that put into the user's text.
    insertions: Insertions,
    data: gtmpl_ng::Template,
}

/// Why a template can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatError {
    /// docker's sentence.
    pub message: String,
    /// The exit code: 64 for a template that can't be read, 1 for one that asks for what isn't there.
    pub code: u8,
}

impl std::fmt::Display for FormatError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for FormatError {}

impl Template {
    /// Reads a template. In it the two letters `\t` and `\n` stand for tab and newline, as docker has it.
    ///
    /// # Errors
    /// What can't be read; exit code 64.
    pub fn parse(text: &str) -> Result<Template, FormatError> {
        let (text, insertions) = structs::printing(&with_labels(text));
        let data = read(&text, functions::DATA)?;
        Ok(Template { text, insertions, data })
    }

    /// Fills it in.
    ///
    /// # Errors
    /// What isn't there; exit code 1.
    pub fn render(&self, value: Value) -> Result<String, FormatError> {
        self.run(&self.data, value)
    }

    /// Fills in the words of a table's header.
    pub(super) fn header(&self, value: Value) -> Result<String, FormatError> {
        self.run(&read(&self.text, functions::HEADER)?, value)
    }

    fn run(&self, template: &gtmpl_ng::Template, value: Value) -> Result<String, FormatError> {
        template.render(&Context::from(value)).map_err(|error| {
            let message = match error.as_structured() {
                Some(error) => self.explain(error),
                None => error.to_string(),
            };
            FormatError { message: format!("template parsing error: template: {message}"), code: 1 }
        })
    }

    /// Go's text: `:1:8: executing "" at <.State.Foo>: map has no entry for key "Foo"`.
    fn explain(&self, error: &StructuredError) -> String {
        let place = &error.context;
        let line_start: usize = self.text.split_inclusive('\n').take(place.line.saturating_sub(1)).map(str::len).sum();
        let start = line_start + place.col.saturating_sub(1);
        let expression = self.text.get(start..(start + place.len).min(self.text.len())).unwrap_or_default();
        let expression = expression.replace(structs::PIPED, "").replace(structs::PIPED_MAP, "");
        let column = self.insertions.original(start) - self.insertions.original(line_start);
        // Go counts from 0, and to the second part of a chain of fields.
        let second = expression.get(1..).and_then(|rest| rest.find('.')).filter(|_| expression.starts_with('.'));
        let column = column + second.map_or(0, |at| at + 1);
        let (expression, why) = self::why(expression, &error.message);
        format!(":{}:{column}: executing \"\" at <{expression}>: {why}", place.line)
    }
}

fn read(text: &str, functions: &[(&str, gtmpl_ng::Func)]) -> Result<gtmpl_ng::Template, FormatError> {
    let mut template = gtmpl_ng::Template::with_limits(Limits::default());
    template.add_funcs(functions);
    template.parse(text).map_err(|error| {
        let error = error.to_string();
        let why = quoted(strip_position(&error).unwrap_or(&error));
        FormatError { message: format!("template parsing error: template: :1: {why}"), code: 64 }
    })?;
    Ok(template)
}

/// `template: :1:3:4:why` → `why`
fn strip_position(text: &str) -> Option<&str> {
    let mut parts = text.strip_prefix("template: ")?.splitn(5, ':');
    parts.nth(4).map(str::trim_start)
}

/// Go puts a function's name in quotes.
fn quoted(why: &str) -> String {
    match why.strip_prefix("function ").and_then(|rest| rest.strip_suffix(" not defined")) {
        Some(name) => format!("function {name:?} not defined"),
        None => why.replace("unexpected unclosed action in command", "unclosed action"),
    }
}

/// The engine's reason in Go's words, and the expression that Go would name.
fn why(expression: String, message: &str) -> (String, String) {
    if let Some((key, _)) = message.strip_prefix("no field `").and_then(|rest| rest.split_once('`')) {
        return (expression, format!("map has no entry for key {key:?}"));
    }
    if message == "only maps and objects have fields" {
        let field = expression.rsplit('.').next().unwrap_or_default();
        let why = format!("can't evaluate field {field} in type interface {{}}");
        return (expression, why);
    }
    if message.starts_with("wrong number of args for ") {
        let function = expression.split_whitespace().next().unwrap_or_default().to_owned();
        return (function, message.to_owned());
    }
    let why = match message {
        "cannot evaluate command: nil" => "nil is not a command",
        other => other,
    };
    (expression, why.to_owned())
}

/// docker's `.Label "key"` is a method with an argument; a function takes its place.
fn with_labels(text: &str) -> String {
    let mut changed = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(".Label ") {
        let (before, after) = rest.split_at(at);
        let inside = before.rfind("{{") > before.rfind("}}")
            || (changed.rfind("{{") > changed.rfind("}}") && !before.contains("}}"));
        let (receiver, before) = match before.strip_suffix('$') {
            Some(before) => ("$", before),
            None => (".", before),
        };
        changed += before;
        changed +=
            &if inside { format!("label {receiver} ") } else { format!("{}.Label ", receiver.trim_start_matches('.')) };
        rest = &after[".Label ".len()..];
    }
    changed + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::document::value;

    fn document() -> Value {
        let text = r#"{"Id":"aaaaaaaaaaaaaaaa","Created":"2025-01-02T03:04:05.123456789Z","Args":["-c","x"],
            "Config":{"Labels":{"a.b":"c","x":"y"},"Env":["A=1","B=<&>"]},"HostConfig":{"Memory":67108864},
            "State":{"Status":"running","Running":true,"Pid":42},"Name":"/web",
            "Mounts":[{"Type":"bind","Source":"/s","Destination":"/d"}],
            "NetworkSettings":{"IPAddress":"172.17.0.2","Ports":{"53/udp":[],"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"10080"}]},
            "Networks":{"bridge":{"IPAddress":"172.17.0.2"}}}}"#;
        structs(value(&serde_json::from_str(text).unwrap()))
    }

    /// Everything but docker's maps is a struct.
    fn structs(value: Value) -> Value {
        match value {
            Value::Map(map) => Value::Object(
                map.into_iter()
                    .map(|(key, field)| match &key[..] {
                        "Labels" => (key, field),
                        "Ports" | "Networks" => match structs(field) {
                            Value::Object(map) => (key, Value::Map(map)),
                            other => (key, other),
                        },
                        _ => (key, structs(field)),
                    })
                    .collect(),
            ),
            Value::Array(list) => Value::Array(list.into_iter().map(structs).collect()),
            other => other,
        }
    }

    fn render(text: &str) -> Result<String, FormatError> {
        Template::parse(text)?.render(document())
    }

    /// Expected results come from docker's client 28.2.2, fed with the same document.
    #[test]
    fn templates_give_what_docker_gives() {
        let table = [
            ("{{.State.Pid}}", "42"),
            ("{{.NetworkSettings.IPAddress}}", "172.17.0.2"),
            ("{{json .NetworkSettings.Ports}}", r#"{"53/udp":[],"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"10080"}]}"#),
            ("{{range .Mounts}}{{.Source}}:{{.Destination}} {{end}}", "/s:/d "),
            (r#"{{index .Config.Labels "a.b"}}"#, "c"),
            (r#"{{index .Config.Labels "no"}}|"#, "|"),
            (r#"{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}"#, "10080"),
            ("{{.Config.Env}}", "[A=1 B=<&>]"),
            ("{{json .Config.Env}}", r#"["A=1","B=<&>"]"#),
            ("{{range .Config.Env}}{{println .}}{{end}}", "A=1\nB=<&>\n"),
            (r#"{{join .Config.Env ","}}"#, "A=1,B=<&>"),
            ("{{.HostConfig.Memory}}", "67108864"),
            ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
            ("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "172.17.0.2"),
            ("{{.NetworkSettings.Networks.bridge.IPAddress}}", "172.17.0.2"),
            ("{{.NetworkSettings.Networks.foo.IPAddress}}", "<no value>"),
            ("{{len .Mounts}}", "1"),
            ("{{.Name | lower | upper}}", "/WEB"),
            (r#"{{printf "%-5d|%q" .State.Pid .Name}}"#, r#"42   |"/web""#),
            ("{{with .State}}{{.Pid}}{{end}}", "42"),
            ("{{range $k,$v := .Config.Labels}}{{$k}}={{$v}} {{end}}", "a.b=c x=y "),
            (r#"{{split "a,b" ","}}"#, "[a b]"),
            ("{{title .State.Status}}", "Running"),
            ("table {{.Name}}", "table /web"),
            ("{{.Config.Labels.x}}", "y"),
            ("{{.Config.Labels.nope}}", "<no value>"),
            ("{{eq .State.Pid 42}}", "true"),
            ("{{slice .Id 0 12}}", "aaaaaaaaaaaa"),
            (r#"{{pad "a" 1 2}}|{{truncate .Id 3}}"#, " a  |aaa"),
            ("  {{.Name}}", "  /web"),
            ("{{json .State}}", r#"{"Pid":42,"Running":true,"Status":"running"}"#),
            ("no action", "no action"),
            ("", ""),
        ];
        for (text, expected) in table {
            assert_eq!(render(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn errors_are_dockers() {
        let table = [
            (
                "{{.Foo}}",
                1,
                r#"template parsing error: template: :1:2: executing "" at <.Foo>: map has no entry for key "Foo""#,
            ),
            (
                "{{.State.Foo}}",
                1,
                r#"template parsing error: template: :1:8: executing "" at <.State.Foo>: map has no entry for key "Foo""#,
            ),
            (
                "{{.State.Foo.Bar}}",
                1,
                r#"template parsing error: template: :1:8: executing "" at <.State.Foo.Bar>: map has no entry for key "Foo""#,
            ),
            (
                "{{range .Foo}}{{end}}",
                1,
                r#"template parsing error: template: :1:8: executing "" at <.Foo>: map has no entry for key "Foo""#,
            ),
            (
                "{{if .Foo}}x{{end}}",
                1,
                r#"template parsing error: template: :1:5: executing "" at <.Foo>: map has no entry for key "Foo""#,
            ),
            ("{{nofunc .}}", 64, r#"template parsing error: template: :1: function "nofunc" not defined"#),
        ];
        for (text, code, message) in table {
            assert_eq!(render(text), Err(FormatError { message: message.to_owned(), code }), "{text}");
        }
        for text in ["{{.", "{{.Name", "{{end}}", "{{if}}", "{{range .Mounts}}"] {
            assert_eq!(render(text).unwrap_err().code, 64, "{text}");
        }
        assert_eq!(render("{{index .Args 5}}").unwrap_err().code, 1);
    }

    #[test]
    fn hostile_templates_meet_limits() {
        for text in [
            r#"{{define "a"}}{{template "a" .}}{{end}}{{template "a" .}}"#,
            r#"{{pad "a" 1000000000 1000000000}}"#,
            "{{range 1000000000}}x{{end}}",
        ] {
            assert!(render(text).is_err(), "{text}");
        }
        assert!(render(r#"{{printf "%1000000000d" 1}}"#).is_ok_and(|text| text.len() < 100));
        let deep = format!("{}{}", "{{if true}}".repeat(100_000), "{{end}}".repeat(100_000));
        assert!(render(&deep).is_err());
    }

    #[test]
    fn labels_are_asked_for_with_an_argument() {
        assert_eq!(with_labels(r#"{{.Label "a"}}"#), r#"{{label . "a"}}"#);
        assert_eq!(
            with_labels(r#"x .Label {{if (eq ($.Label "a") "b")}}{{.Label "c"}}{{end}}"#),
            r#"x .Label {{if (eq (label $ "a") "b")}}{{label . "c"}}{{end}}"#
        );
        assert_eq!(
            with_labels(r#"{{.Label "a"}} {{upper (.Label "b")}} .Label "#),
            r#"{{label . "a"}} {{upper (label . "b")}} .Label "#
        );
    }
}
