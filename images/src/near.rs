//! "Did you mean": the known name that looks most like the one that wasn't found.

/// The nearest of `known`, if it is near enough to be worth a question.
pub(crate) fn nearest(name: &str, known: &[String]) -> Option<String> {
    // An attacker's name must not cost time; a longer one is no typing error.
    if name.len() > 100 {
        return None;
    }
    let repository = |name: &str| name.rsplit_once(':').map_or(name.to_owned(), |(name, _)| name.to_owned());
    let distance = |other: &String| {
        if repository(name) == repository(other) {
            return 1; // The same repository with another tag.
        }
        let bare = edits(name, &repository(other));
        bare.min(edits(name, other))
    };
    let best = known.iter().map(|other| (distance(other), other)).min()?;
    // As it was typed: without a tag where that is `latest`.
    let shown = best.1.strip_suffix(":latest").filter(|_| !name.contains(':')).unwrap_or(best.1);
    (best.0 <= (name.chars().count() / 3).clamp(1, 3)).then(|| shown.to_owned())
}

/// Levenshtein's distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_or_another_tag_is_near_and_a_stranger_is_not() {
        let known = ["busybox:latest".to_owned(), "nginx:1.27".to_owned(), "me/app:v2".to_owned()];
        let nearest = |name| nearest(name, &known);
        assert_eq!(nearest("bsuybox").as_deref(), Some("busybox"));
        assert_eq!(nearest("busyboxx:latest").as_deref(), Some("busybox:latest"));
        assert_eq!(nearest("nginx").as_deref(), Some("nginx:1.27"));
        assert_eq!(nearest("me/app:v1").as_deref(), Some("me/app:v2"));
        assert_eq!(nearest("postgres"), None);
        assert_eq!(nearest(&"x".repeat(100_000)), None);
    }
}
