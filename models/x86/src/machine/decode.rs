//! From a tree of values to Rust types, by serde, with errors that know their path and place.

use std::fmt;

use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};
use serde::forward_to_deserialize_any;

use super::document::{Fault, Member, Node, Segment, Value};
use super::error::nearest;

/// Most alternatives that a message spells out.
const MOST_NAMED: usize = 16;

/// Reads a value of a type.
pub(super) fn decode<'de, T: serde::Deserialize<'de>>(node: &'de Node) -> Result<T, Fault> {
    T::deserialize(Decoder(node)).map_err(|mut fault| {
        fault.place.get_or_insert(node.place);
        fault
    })
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Fault::new(what.to_string())
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Fault::new(unknown("key", field, expected))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Fault::new(unknown("word", variant, expected))
    }

    fn missing_field(field: &'static str) -> Self {
        Fault::new(format!("key `{field}` is missing"))
    }
}

fn unknown(kind: &str, name: &str, expected: &'static [&'static str]) -> String {
    match nearest(name, expected) {
        Some(near) => format!("unknown {kind} `{name}` (did you mean `{near}`?)"),
        None if expected.len() <= MOST_NAMED => {
            format!("unknown {kind} `{name}`; known are {}", expected.join(", "))
        }
        None => format!("unknown {kind} `{name}`"),
    }
}

struct Decoder<'de>(&'de Node);

impl<'de> Deserializer<'de> for Decoder<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(value) => visitor.visit_u64(*value),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::Array(items) => {
                let mut rest = Items { all: items, next: 0 };
                let value = visitor.visit_seq(&mut rest)?;
                if rest.next < items.len() {
                    let what = format!("{} elements: at most {} are possible", items.len(), rest.next);
                    return Err(Fault::new(what));
                }
                Ok(value)
            }
            Value::Object(members) => visitor.visit_map(Members {
                rest: members.iter(),
                current: None,
            }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.0.value {
            Value::Text(word) => visitor.visit_enum(Word(word)),
            _ => Err(Fault::new("a word in quotes is wanted here")),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct Items<'de> {
    all: &'de [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for &mut Items<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(node) = self.all.get(self.next) else {
            return Ok(None);
        };
        let index = self.next;
        self.next += 1;
        seed.deserialize(Decoder(node))
            .map(Some)
            .map_err(|fault| fault.inside(&Segment::Index(index), node.place))
    }
}

struct Members<'de> {
    rest: std::slice::Iter<'de, Member>,
    current: Option<&'de Member>,
}

impl<'de> MapAccess<'de> for Members<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        self.current = self.rest.next();
        let Some(member) = self.current else {
            return Ok(None);
        };
        let key: de::value::BorrowedStrDeserializer<'de, Fault> =
            de::value::BorrowedStrDeserializer::new(&member.key);
        seed.deserialize(key)
            .map(Some)
            .map_err(|fault| fault.inside(&Segment::Key(&member.key), member.key_place))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let member = self.current.ok_or_else(|| Fault::new("a value without a key"))?;
        seed.deserialize(Decoder(&member.value))
            .map_err(|fault| fault.inside(&Segment::Key(&member.key), member.value.place))
    }
}

struct Word<'de>(&'de str);

impl<'de> EnumAccess<'de> for Word<'de> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Fault> {
        let word: de::value::StrDeserializer<'de, Fault> = self.0.into_deserializer();
        Ok((seed.deserialize(word)?, self))
    }
}

impl<'de> VariantAccess<'de> for Word<'de> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _seed: T) -> Result<T::Value, Fault> {
        Err(no_payload(self.0))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _visitor: V) -> Result<V::Value, Fault> {
        Err(no_payload(self.0))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Fault> {
        Err(no_payload(self.0))
    }
}

fn no_payload(word: &str) -> Fault {
    Fault::new(format!("`{word}` alone says too little here"))
}
