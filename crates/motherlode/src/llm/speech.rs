//! What an embedded model may say next: one of the allowed labels where a schema asks for labels, or the likeliest token.

use rand::RngExt;
use serde_json::Value;

use super::Request;
use super::chat::Chat;
use crate::engine::Next;
use crate::error::{Error, Result};
use crate::random;

/// An answer as it grows.
pub(super) struct Speech {
    /// Fields of an object of labels that were not chosen yet, the next one last; none for free text.
    fields: Option<Vec<Field>>,
    /// The tokens of the next choice: one for each label.
    labels: Vec<u32>,
    /// The answer so far.
    text: String,
    /// The tokens of the answer so far, and of a label's field what is written already.
    tokens: Vec<u32>,
    temperature: f64,
    top_p: f64,
    most: usize,
    draws: rand_chacha::ChaCha8Rng,
}

/// A member of the object, whose value is one of the labels.
struct Field {
    name: String,
    labels: Vec<String>,
}

impl Speech {
    /// How the answer to a request begins.
    ///
    /// # Errors
    /// A schema that is no object of enumerated values.
    pub(super) fn new(request: &Request) -> Result<Self> {
        let parameters = &request.parameters;
        if parameters.labels.is_some() {
            return Err(Error::config(format!(
                "the embedded model `{}` gives no probabilities; let judge.cascade.model name a model of a server",
                request.model
            )));
        }
        let fields = parameters.schema.as_ref().map(fields).transpose()?;
        Ok(Self {
            text: if fields.is_some() { "{".to_owned() } else { String::new() },
            fields,
            labels: Vec::new(),
            tokens: Vec::new(),
            temperature: parameters.temperature,
            top_p: parameters.top_p,
            most: parameters.max_tokens as usize,
            draws: random::keyed(parameters.seed, "answer", &request.key()),
        })
    }

    /// What is written before the first choice: tokens of the answer that are no choice of the model's.
    pub(super) fn opening(&mut self, chat: &Chat) -> Result<Vec<u32>> {
        if self.fields.is_some() { self.forced(chat) } else { Ok(Vec::new()) }
    }

    /// Takes the scores of the next token and says what comes then.
    pub(super) fn next(&mut self, scores: &[f32], chat: &Chat) -> Result<Next> {
        let Some(fields) = &mut self.fields else {
            let token = self.choose(scores) as u32;
            if chat.ends(token) {
                return Ok(Next::End);
            }
            self.tokens.push(token);
            return Ok(if self.tokens.len() < self.most { Next::Tokens(vec![token]) } else { Next::End });
        };
        let field = fields.pop().expect("there is a field while labels are chosen");
        let last = fields.is_empty();
        let labels = std::mem::take(&mut self.labels);
        let of_labels: Vec<f32> = labels.iter().map(|label| scores[*label as usize]).collect();
        let chosen = self.choose(&of_labels);
        self.text.push_str(&format!("\"{}\": {}", field.name, field.labels[chosen]));
        self.tokens.push(labels[chosen]);
        if last {
            self.text.push('}');
            return Ok(Next::End);
        }
        self.text.push_str(", ");
        let mut tokens = vec![labels[chosen]];
        tokens.extend(self.forced(chat)?);
        Ok(Next::Tokens(tokens))
    }

    /// The finished answer.
    pub(super) fn finish(&self, chat: &Chat) -> Result<String> {
        if self.fields.is_some() { Ok(self.text.clone()) } else { chat.text(&self.tokens) }
    }

    /// Tokens of the answer so far.
    pub(super) fn length(&self) -> usize {
        self.tokens.len()
    }

    /// The tokens up to where the labels of the next field part, which become the next choice.
    fn forced(&mut self, chat: &Chat) -> Result<Vec<u32>> {
        let field = self.fields.as_ref().and_then(|fields| fields.last()).expect("a field is left");
        let with = |label: &String| chat.tokens(&format!("{}\"{}\": {label}", self.text, field.name));
        let spelled = field.labels.iter().map(with).collect::<Result<Vec<_>>>()?;
        let parts = |tokens: &Vec<u32>| {
            let (label, common) = tokens.split_last()?;
            let written = common.strip_prefix(self.tokens.as_slice())?;
            Some((*label, written.to_vec()))
        };
        let parts: Option<Vec<(u32, Vec<u32>)>> = spelled.iter().map(parts).collect();
        let Some(parts) = parts.filter(|parts| parts.iter().all(|(_, written)| *written == parts[0].1)) else {
            let message = format!("the model's tokenizer has no single token for each of {}", field.labels.join(", "));
            return Err(Error::data(message));
        };
        let written = parts[0].1.clone();
        self.labels = parts.into_iter().map(|(label, _)| label).collect();
        self.tokens.extend(&written);
        Ok(written)
    }

    /// The place of the chosen one of `scores`: the likeliest, the first of equals, or one drawn as `temperature` and
    /// `top_p` say.
    fn choose(&mut self, scores: &[f32]) -> usize {
        let score = |place: usize| f64::from(scores[place]);
        let best = (1..scores.len()).fold(0, |best, place| if score(place) > score(best) { place } else { best });
        if self.temperature <= 0.0 {
            return best;
        }
        let weight = |place: usize| ((score(place) - score(best)) / self.temperature).exp();
        let mut order: Vec<(usize, f64)> = (0..scores.len()).map(|place| (place, weight(place))).collect();
        order.sort_by(|left, right| right.1.total_cmp(&left.1).then(left.0.cmp(&right.0)));
        let total: f64 = order.iter().map(|(_, weight)| weight).sum();
        let mut kept = 0.0;
        let count = order.iter().take_while(|(_, weight)| {
            let before = kept;
            kept += weight;
            before < self.top_p * total
        });
        let count = count.count().max(1);
        let kept: f64 = order[..count].iter().map(|(_, weight)| weight).sum();
        let mut left = self.draws.random::<f64>() * kept;
        let drawn = order[..count].iter().find(|(_, weight)| {
            left -= weight;
            left < 0.0
        });
        drawn.map_or(best, |(place, _)| *place)
    }
}

/// The fields of an object whose values are enumerated, the first one last.
fn fields(schema: &Value) -> Result<Vec<Field>> {
    let refused = || {
        Error::config("an embedded model answers in free text or by an object of enumerated values; got another schema")
    };
    let names = schema["required"].as_array().filter(|names| !names.is_empty()).ok_or_else(refused)?;
    let field = |name: &Value| {
        let name = name.as_str()?;
        let labels: Vec<String> = schema["properties"][name]["enum"].as_array()?.iter().map(Value::to_string).collect();
        (!labels.is_empty()).then(|| Field { name: name.to_owned(), labels })
    };
    let fields: Option<Vec<Field>> = names.iter().rev().map(field).collect();
    fields.ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::Gguf;
    use crate::llm::tests::byte_model;
    use crate::llm::{Message, Parameters};

    fn request(schema: Option<Value>, temperature: f64, seed: u64) -> Request {
        Request {
            model: "m".into(),
            prompt: "p".into(),
            parameters: Parameters { temperature, seed, schema, ..Parameters::greedy(4) },
            attempt: 0,
            messages: vec![Message::user("x")],
            about: String::new(),
        }
    }

    fn schema() -> Value {
        let grade = serde_json::json!({"type": "integer", "enum": [0, 1, 2]});
        serde_json::json!({"type": "object", "properties": {"b": grade, "a": grade}, "required": ["b", "a"]})
    }

    fn chat() -> Chat {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        byte_model(&path);
        Chat::open(&Gguf::open(&path).unwrap()).unwrap()
    }

    /// Scores of all tokens, with the one of `token` above the others.
    fn above(chat: &Chat, token: &str) -> Vec<f32> {
        let mut scores = vec![0.0; 258];
        scores[chat.tokens(token).unwrap()[0] as usize] = 1.0;
        scores
    }

    #[test]
    fn labels_are_chosen_in_the_order_of_the_schema() {
        let chat = chat();
        let mut speech = Speech::new(&request(Some(schema()), 0.0, 0)).unwrap();
        assert_eq!(chat.text(&speech.opening(&chat).unwrap()).unwrap(), "{\"b\": ");
        let Next::Tokens(tokens) = speech.next(&above(&chat, "2"), &chat).unwrap() else { panic!("one is left") };
        assert_eq!(chat.text(&tokens).unwrap(), "2, \"a\": ");
        // A token that is no label does not count, and the first of equal labels does.
        assert_eq!(speech.next(&above(&chat, "x"), &chat).unwrap(), Next::End);
        assert_eq!(speech.finish(&chat).unwrap(), r#"{"b": 2, "a": 0}"#);
    }

    #[test]
    fn free_text_ends_at_a_control_token_or_at_its_longest() {
        let chat = chat();
        let mut speech = Speech::new(&request(None, 0.0, 0)).unwrap();
        assert!(speech.opening(&chat).unwrap().is_empty());
        assert!(matches!(speech.next(&above(&chat, "o"), &chat).unwrap(), Next::Tokens(_)));
        assert_eq!(speech.next(&above(&chat, "<|end|>"), &chat).unwrap(), Next::End);
        assert_eq!(speech.finish(&chat).unwrap(), "o");
        let mut speech = Speech::new(&request(None, 0.0, 0)).unwrap();
        let turns = (0..4).map(|_| speech.next(&above(&chat, "o"), &chat).unwrap() == Next::End);
        assert_eq!(turns.collect::<Vec<_>>(), [false, false, false, true]);
        assert_eq!(speech.finish(&chat).unwrap(), "oooo");
    }

    #[test]
    fn samples_follow_the_probabilities_and_repeat() {
        let chat = chat();
        let scores: Vec<f32> = (0..258).map(|token| if token < 3 { [0.0, 1.0, -9.0][token] } else { -1e9 }).collect();
        let draw = |seed| {
            let mut speech = Speech::new(&request(None, 1.0, seed)).unwrap();
            speech.next(&scores, &chat).unwrap();
            speech.tokens[0]
        };
        let ones = (0..2000).filter(|seed| draw(*seed) == 1).count() as f64 / 2000.0;
        let expected = 1_f64.exp() / (1.0 + 1_f64.exp() + (-9_f64).exp());
        assert!((ones - expected).abs() < 0.04, "{ones} and {expected}");
        assert_eq!(draw(7), draw(7));
        let narrow = Request {
            parameters: Parameters { top_p: 0.5, ..request(None, 1.0, 0).parameters },
            ..request(None, 1.0, 0)
        };
        let mut speech = Speech::new(&narrow).unwrap();
        speech.next(&scores, &chat).unwrap();
        assert_eq!(speech.tokens, [1], "the likeliest alone makes half of the probability");
    }

    #[test]
    fn other_schemas_are_refused() {
        for schema in
            [serde_json::json!({}), serde_json::json!({"required": ["a"], "properties": {"a": {"type": "string"}}})]
        {
            assert!(Speech::new(&request(Some(schema), 0.0, 0)).is_err());
        }
    }
}
