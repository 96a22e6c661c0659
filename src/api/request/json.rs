//! JSON of callers, read without losing anything: a member that is repeated is a fault. Readers of
//! JSON take the one or the other of its values, so that something in front may have decided by
//! another than this program would go by.

use std::{collections::BTreeSet, fmt};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::is_plain_name;

/// What a text of JSON says, with the pointers of members that are repeated, each once.
pub(super) struct Document {
    pub(super) value: Value,
    pub(super) repeated: BTreeSet<String>,
}

/// Reads a text of JSON to its end.
pub(super) fn read(text: &[u8]) -> serde_json::Result<Document> {
    let mut repeated = BTreeSet::new();
    let mut reader = serde_json::Deserializer::from_slice(text);
    let part = Part {
        pointer: String::new(),
        repeated: &mut repeated,
    };
    let value = part.deserialize(&mut reader)?;
    reader.end()?;
    Ok(Document { value, repeated })
}

/// A value inside of the text.
struct Part<'r> {
    /// Where it is, as far as the names on the way can be repeated in an answer.
    pointer: String,
    repeated: &'r mut BTreeSet<String>,
}

impl<'de> DeserializeSeed<'de> for Part<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(Part {
            pointer: self.pointer.clone(),
            repeated: &mut *self.repeated,
        })? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = items.next_key::<String>()? {
            let mut pointer = self.pointer.clone();
            if is_plain_name(&name) {
                pointer = format!("{pointer}/{name}");
            }
            if members.contains_key(&name) {
                self.repeated.insert(pointer.clone());
            }
            let value = items.next_value_seed(Part {
                pointer,
                repeated: &mut *self.repeated,
            })?;
            members.insert(name, value);
        }
        Ok(members.into())
    }
}
