//! The lines of `events`, and which events its filters let through.

use super::document::{Document, object};
use super::human;
use super::template::{FormatError, Template};
use crate::events::Event;

/// How events are printed.
pub struct Printer {
    template: Option<Template>,
    json: bool,
}

impl Printer {
    /// By `--format`.
    ///
    /// # Errors
    /// The template can't be read.
    pub fn new(format: Option<&str>) -> Result<Printer, FormatError> {
        match format.unwrap_or_default() {
            "" => Ok(Printer { template: None, json: false }),
            "json" => Ok(Printer { template: None, json: true }),
            text => Ok(Printer { template: Some(Template::parse(text).map_err(in_dockers_words)?), json: false }),
        }
    }

    /// One line, with its end.
    ///
    /// # Errors
    /// The template asks for what isn't there.
    pub fn line(&self, event: &Event) -> Result<String, FormatError> {
        match &self.template {
            Some(template) => Ok(template.render(document(event).to_value()).map_err(in_dockers_words)? + "\n"),
            None if self.json => Ok(serde_json::to_string(&document(event)).unwrap_or_default() + "\n"),
            None => Ok(text(event)),
        }
    }
}

fn in_dockers_words(error: FormatError) -> FormatError {
    FormatError { message: error.message.replacen("template parsing error:", "Error parsing format:", 1), code: 64 }
}

/// `2025-11-23T12:13:20.123456789Z container start ID (image=busybox, name=web)`
fn text(event: &Event) -> String {
    let attributes: Vec<String> = event.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let attributes = if attributes.is_empty() { String::new() } else { format!(" ({})", attributes.join(", ")) };
    format!("{} {} {} {}{attributes}\n", human::rfc3339_nano(event.time), event.kind, event.action, event.id)
}

/// docker's message; containers and images still have the fields of its first API.
fn document(event: &Event) -> Document {
    let old = event.kind == "container" || event.kind == "image";
    let only_old = |text: &str| Document::omittable(if old { text } else { "" });
    let from = if event.kind == "container" { event.attributes.get("image") } else { None };
    object! {
        "status": only_old(&event.action),
        "id": only_old(&event.id),
        "from": Document::omittable(from.map_or("", String::as_str)),
        "Type": event.kind.as_str(),
        "Action": event.action.as_str(),
        "Actor": object! { "ID": event.id.as_str(), "Attributes": &event.attributes },
        "scope": "local",
        "time": event.time / 1_000_000_000,
        "timeNano": event.time,
    }
}

/// The filters, ready to be asked: those of one key are alternatives, different keys all have to fit, and all labels.
pub struct Filter {
    conditions: Vec<(&'static str, String)>,
}

const KEYS: [&str; 8] = ["type", "event", "container", "image", "label", "network", "volume", "scope"];

impl Filter {
    /// Reads `-f KEY=VALUE` flags.
    ///
    /// # Errors
    /// The first one that is wrong, with what there is.
    pub fn parse(flags: &[String]) -> Result<Filter, String> {
        let condition = |flag: &String| {
            let (key, value) =
                flag.split_once('=').ok_or_else(|| format!("bad format of filter {flag:?} (expected name=value)"))?;
            let known = KEYS.iter().find(|known| **known == key.trim());
            let near = || crate::near::hint(key, KEYS);
            let key =
                known.ok_or_else(|| format!("invalid filter '{key}'{}; there are {}", near(), KEYS.join(", ")))?;
            Ok((*key, value.to_owned()))
        };
        Ok(Filter { conditions: flags.iter().map(condition).collect::<Result<_, String>>()? })
    }

    /// Whether an event is let through.
    pub fn fits(&self, event: &Event) -> bool {
        let values = |key: &'static str| self.conditions.iter().filter(move |(of, _)| *of == key).map(|(_, text)| text);
        values("label").all(|wanted| fits(event, "label", wanted))
            && KEYS
                .into_iter()
                .filter(|key| *key != "label")
                .all(|key| values(key).next().is_none() || values(key).any(|wanted| fits(event, key, wanted)))
    }
}

fn fits(event: &Event, key: &str, wanted: &str) -> bool {
    let named = |kind: &str| {
        event.kind == kind
            && (event.id.starts_with(wanted) || event.attributes.get("name").is_some_and(|name| name == wanted))
    };
    let image = |name: &str| name == wanted || name.strip_suffix(":latest") == Some(wanted);
    match key {
        "type" => event.kind == wanted,
        // `exec_create: CMD` and `health_status: healthy` have their detail behind a colon.
        "event" => event.action == wanted || event.action.split(": ").next() == Some(wanted),
        "scope" => wanted == "local",
        "label" => match wanted.split_once('=') {
            Some((key, value)) => event.attributes.get(key).is_some_and(|found| found == value),
            None => event.attributes.contains_key(wanted),
        },
        "image" => {
            let used = event.attributes.get("image").is_some_and(|name| image(name));
            named("image") || event.kind == "image" && image(&event.id) || used
        }
        kind => named(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, action: &str) -> Event {
        let mut event = Event::new(kind, action, "aaaa").with("name", "web").with("image", "busybox").with("a", 1);
        event.time = 1_763_900_000_123_456_000;
        event
    }

    /// The expected text is docker's client's, fed with the same events.
    #[test]
    fn lines_are_docker_s() {
        let start = event("container", "start");
        let table = [
            ("", "2025-11-23T12:13:20.123456000Z container start aaaa (a=1, image=busybox, name=web)\n"),
            (
                "json",
                "{\"status\":\"start\",\"id\":\"aaaa\",\"from\":\"busybox\",\"Type\":\"container\",\"Action\":\"start\",\
                 \"Actor\":{\"ID\":\"aaaa\",\"Attributes\":{\"a\":\"1\",\"image\":\"busybox\",\"name\":\"web\"}},\
                 \"scope\":\"local\",\"time\":1763900000,\"timeNano\":1763900000123456000}\n",
            ),
            (
                "{{.Type}}|{{.Action}}|{{.ID}}|{{.Actor.Attributes.name}}|{{.Time}}|{{.TimeNano}}|{{.Status}}|{{.From}}|{{.Scope}}",
                "container|start|aaaa|web|1763900000|1763900000123456000|start|busybox|local\n",
            ),
            (
                "{{.}}",
                "{start aaaa busybox container start {aaaa map[a:1 image:busybox name:web]} local 1763900000 1763900000123456000}\n",
            ),
        ];
        for (format, expected) in table {
            assert_eq!(Printer::new(Some(format)).unwrap().line(&start).unwrap(), expected, "{format}");
        }
        let mut connect = event("network", "connect");
        connect.attributes.clear();
        let line = |format| Printer::new(Some(format)).unwrap().line(&connect).unwrap();
        assert_eq!(line(""), "2025-11-23T12:13:20.123456000Z network connect aaaa\n");
        assert!(line("json").starts_with("{\"Type\":\"network\""));
        let error = Printer::new(Some("{{")).err().unwrap();
        assert_eq!((error.message.as_str(), error.code), ("Error parsing format: template: :1: unclosed action", 64));
        assert_eq!(Printer::new(Some("{{.Foo}}")).unwrap().line(&connect).unwrap_err().code, 64);
    }

    #[test]
    fn filters() {
        let fits = |flags: &[&str], event: &Event| {
            Filter::parse(&flags.iter().map(|flag| (*flag).to_owned()).collect::<Vec<_>>()).unwrap().fits(event)
        };
        let start = event("container", "start");
        for flags in [
            &["type=container"][..],
            &["event=start", "event=die"],
            &["container=web"],
            &["container=aa"],
            &["image=busybox"],
            &["label=a", "label=a=1"],
            &["scope=local"],
        ] {
            assert!(fits(flags, &start), "{flags:?}");
        }
        for flags in [&["type=image"][..], &["event=die"], &["container=x"], &["label=a=2"], &["network=web"]] {
            assert!(!fits(flags, &start), "{flags:?}");
        }
        assert!(fits(&["event=exec_create"], &event("container", "exec_create: sh -c x")));
        assert!(Filter::parse(&["tpye=x".into()]).err().unwrap().contains("did you mean type?"));
    }
}
