//! Fields of other versions of minidock, kept at every level when a file is written anew.

use serde_json::Value;

/// Carries into `new` whatever `old` has and its reading by this program (`known`) hasn't. Elements of a list keep theirs
/// when the list is as long as it was, else when they are as they were.
pub fn carry(old: &Value, known: &Value, new: &mut Value) {
    match (old, known, new) {
        (Value::Object(old), Value::Object(known), Value::Object(new)) => {
            for (key, value) in old {
                match (known.get(key), new.get_mut(key)) {
                    (Some(known), Some(new)) => carry(value, known, new),
                    (None, None) => drop(new.insert(key.clone(), value.clone())),
                    _ => {}
                }
            }
        }
        (Value::Array(old), Value::Array(known), Value::Array(new)) if old.len() == known.len() => {
            let same_length = old.len() == new.len();
            for (index, new) in new.iter_mut().enumerate() {
                let at = if same_length { Some(index) } else { known.iter().position(|known| known == new) };
                if let Some(at) = at {
                    carry(&old[at], &known[at], new);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn carried(old: Value, known: Value, mut new: Value) -> Value {
        carry(&old, &known, &mut new);
        new
    }

    #[test]
    fn unknown_fields_stay_and_known_ones_may_go() {
        let old = json!({"a": 1, "gone": 2, "x": [1], "in": {"b": 1, "y": {"z": 2}}});
        let known = json!({"a": 1, "gone": 2, "in": {"b": 1}});
        let new = carried(old, known, json!({"a": 5, "in": {"b": 6}}));
        assert_eq!(new, json!({"a": 5, "x": [1], "in": {"b": 6, "y": {"z": 2}}}));
    }

    #[test]
    fn elements_of_lists_keep_theirs() {
        let (old, known) = (json!([{"n": 1, "x": 1}, {"n": 2, "x": 2}]), json!([{"n": 1}, {"n": 2}]));
        assert_eq!(
            carried(old.clone(), known.clone(), json!([{"n": 1}, {"n": 3}])),
            json!([{"n": 1, "x": 1}, {"n": 3, "x": 2}])
        );
        assert_eq!(carried(old.clone(), known.clone(), json!([{"n": 2}])), json!([{"n": 2, "x": 2}]));
        assert_eq!(carried(old, known, json!([])), json!([]));
    }

    #[test]
    fn what_changed_its_kind_is_the_new_one_s() {
        assert_eq!(carried(json!({"a": {"x": 1}}), json!({"a": {}}), json!({"a": null})), json!({"a": null}));
        assert_eq!(carried(json!(null), json!({}), json!({"a": 1})), json!({"a": 1}));
    }
}
