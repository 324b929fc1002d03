//! The picture for graphviz: a cluster for each namespace, a node for each link, an edge for each cable.

use std::fmt::Write;

use super::model::{self, Picture};

/// `dot -Tsvg` makes an image of it.
pub fn render(picture: &Picture) -> String {
    let mut text = String::from(
        "graph minidock {\n  compound=true; rankdir=TB; fontname=\"Helvetica\";\n  \
         node [shape=box, style=\"rounded,filled\", fillcolor=white, fontname=\"Helvetica\", fontsize=11];\n",
    );
    for namespace in &picture.namespaces {
        let marked = picture.differences_of(namespace).count() > 0;
        let _ = writeln!(
            text,
            "  subgraph cluster_{} {{\n    label={}; style=\"rounded,filled\"; fillcolor=\"{}\"; color=\"{}\";",
            namespace.inode,
            quoted(&picture.title(namespace)),
            if namespace.is_host { "#eef3fb" } else { "#f3faf0" },
            if marked { "#c0392b" } else { "#8a94a6" }
        );
        for link in namespace.links.iter().filter(|link| link.name != "lo") {
            let lines: Vec<String> = std::iter::once(link.name.clone()).chain(model::addresses(link)).collect();
            let _ = writeln!(text, "    {} [label={}];", node(namespace.inode, link.index), quoted(&lines.join("\n")));
        }
        let published = model::published(picture, namespace).into_iter();
        let published: Vec<String> = published.map(|(at, to, _)| format!("{at} -> {to}")).collect();
        if !published.is_empty() {
            let label = quoted(&format!("published\n{}", published.join("\n")));
            let _ = writeln!(text, "    p{} [shape=note, label={label}];", namespace.inode);
        }
        for (number, difference) in picture.differences_of(namespace).enumerate() {
            let _ = writeln!(
                text,
                "    d{}_{number} [shape=note, color=\"#c0392b\", fontcolor=\"#c0392b\", label={}];",
                namespace.inode,
                quoted(difference)
            );
        }
        text.push_str("  }\n");
    }
    for namespace in &picture.namespaces {
        for link in &namespace.links {
            let own = node(namespace.inode, link.index);
            if link.master != 0 {
                let _ = writeln!(text, "  {} -- {own} [color=\"#4a78c2\"];", node(namespace.inode, link.master));
            }
            if let Some((there, other)) = picture.peer(link)
                && (namespace.inode, link.index) < (there.inode, other.index)
            {
                let _ = writeln!(text, "  {own} -- {} [penwidth=2];", node(there.inode, other.index));
            } else if link.kind != "veth"
                && let Some((there, parent)) = picture.leads_to(namespace, link)
            {
                let _ = writeln!(text, "  {} -- {own} [style=dashed];", node(there.inode, parent.index));
            }
        }
    }
    text.push_str("}\n");
    text
}

fn node(inode: u64, index: u32) -> String {
    format!("n{inode}_{index}")
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
