//! Near misses: what somebody may have meant who typed a name that isn't there.

/// The known word that is nearest to a typed one, if it is near enough: two letters wrong, fewer in short words.
pub fn miss<T: AsRef<str>>(typed: &str, known: impl IntoIterator<Item = T>) -> Option<String> {
    let allowed = (typed.chars().count() / 3).clamp(1, 2);
    let near = known.into_iter().map(|word| (distance(typed, word.as_ref()), word.as_ref().to_owned()));
    near.filter(|(distance, word)| *distance > 0 && *distance <= allowed && *distance < word.len())
        .min()
        .map(|(_, word)| word)
}

/// `; did you mean busybox?`, or nothing.
pub fn hint<T: AsRef<str>>(typed: &str, known: impl IntoIterator<Item = T>) -> String {
    miss(typed, known).map(|near| format!("; did you mean {near}?")).unwrap_or_default()
}

/// How many letters must be put in, taken out, changed, or swapped with their neighbour (Damerau and Levenshtein).
/// Bounded: nobody mistypes by more than a few dozen letters, and the input may be anything.
pub fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().take(64).collect(), right.chars().take(64).collect());
    let mut rows = vec![vec![0; right.len() + 1]; left.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=right.len()).collect();
    for i in 1..=left.len() {
        for j in 1..=right.len() {
            let change = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_single_letters() {
        for (a, b, wanted) in [("web", "web", 0), ("wbe", "web", 1), ("we", "web", 1), ("", "abc", 3), ("ab", "cd", 2)]
        {
            assert_eq!(distance(a, b), wanted, "{a} {b}");
        }
    }

    #[test]
    fn only_what_is_near_is_meant() {
        let known = ["busybox", "alpine", "db", "web"];
        for (typed, expected) in [
            ("busybx", Some("busybox")),
            ("bsuybox", Some("busybox")),
            ("wbe", Some("web")),
            ("x", None),
            ("nginx", None),
            ("busybox", None),
            ("", None),
        ] {
            assert_eq!(miss(typed, known).as_deref(), expected, "{typed}");
        }
        assert_eq!(hint("alpin", known), "; did you mean alpine?");
    }
}
