//! What an embedded model may say next: one of the allowed labels where a schema asks for labels, or the likeliest token;
//! or, with nothing said, how likely each of some answers is.

use std::collections::BTreeSet;

use rand::RngExt;
use serde_json::Value;

use super::Request;
use super::chat::Chat;
use crate::engine::Next;
use crate::error::{Error, Result};
use crate::random;

/// An answer as it grows.
pub(super) struct Speech {
    form: Form,
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

/// What the answer is.
enum Form {
    Text,
    /// An object of labels: the fields that were not chosen yet, the next one last.
    Object(Vec<Field>),
    /// The log-probabilities of these answers.
    Scores(Vec<String>),
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
        let form = match (&parameters.labels, &parameters.schema) {
            (Some(labels), _) => Form::Scores(labels.clone()),
            (None, Some(schema)) => Form::Object(fields(schema)?),
            (None, None) => Form::Text,
        };
        Ok(Self {
            text: String::new(),
            form,
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
        let Form::Object(_) = &self.form else { return Ok(Vec::new()) };
        self.text.push('{');
        self.forced(chat)
    }

    /// Takes the scores of the next token and says what comes then.
    pub(super) fn next(&mut self, scores: &[f32], chat: &Chat) -> Result<Next> {
        match &self.form {
            Form::Text => Ok(self.next_token(scores, chat)),
            Form::Object(_) => self.next_label(scores, chat),
            Form::Scores(answers) => {
                self.text = log_probabilities(answers, scores, chat)?;
                Ok(Next::End)
            }
        }
    }

    fn next_token(&mut self, scores: &[f32], chat: &Chat) -> Next {
        let token = self.choose(scores) as u32;
        if chat.ends(token) {
            return Next::End;
        }
        self.tokens.push(token);
        if self.tokens.len() < self.most { Next::Tokens(vec![token]) } else { Next::End }
    }

    fn next_label(&mut self, scores: &[f32], chat: &Chat) -> Result<Next> {
        let labels = std::mem::take(&mut self.labels);
        let of_labels: Vec<f32> = labels.iter().map(|label| scores[*label as usize]).collect();
        let chosen = self.choose(&of_labels);
        self.tokens.push(labels[chosen]);
        let Form::Object(fields) = &mut self.form else { unreachable!("labels are those of an object") };
        let field = fields.pop().expect("there is a field while labels are chosen");
        let last = fields.is_empty();
        self.text.push_str(&format!("\"{}\": {}", field.name, field.labels[chosen]));
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
        if let Form::Text = self.form { chat.text(&self.tokens) } else { Ok(self.text.clone()) }
    }

    /// Tokens of the answer so far.
    pub(super) fn length(&self) -> usize {
        self.tokens.len()
    }

    /// The tokens up to where the labels of the next field part, which become the next choice.
    fn forced(&mut self, chat: &Chat) -> Result<Vec<u32>> {
        let Form::Object(fields) = &self.form else { unreachable!("labels are those of an object") };
        let field = fields.last().expect("a field is left");
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

/// The answers' log-probabilities as a JSON object, in their order.
///
/// An answer has the probability of every token that it begins with, written in small letters, with a capital or in
/// capitals, after a space or not.
fn log_probabilities(answers: &[String], scores: &[f32], chat: &Chat) -> Result<String> {
    let highest = scores.iter().fold(f64::NEG_INFINITY, |highest, score| highest.max(f64::from(*score)));
    let log_sum = |scores: &mut dyn Iterator<Item = f32>| {
        highest + scores.map(|score| (f64::from(score) - highest).exp()).sum::<f64>().ln()
    };
    let all = log_sum(&mut scores.iter().copied());
    let mut object = serde_json::Map::new();
    for answer in answers {
        let tokens = beginnings(answer, chat)?;
        let own = log_sum(&mut tokens.iter().map(|token| scores[*token as usize]));
        object.insert(answer.clone(), Value::from(own - all));
    }
    Ok(Value::Object(object).to_string())
}

/// The first tokens of the ways to write an answer, each once.
fn beginnings(answer: &str, chat: &Chat) -> Result<BTreeSet<u32>> {
    let capital: String = answer.chars().take(1).flat_map(char::to_uppercase).chain(answer.chars().skip(1)).collect();
    let mut tokens = BTreeSet::new();
    for written in [answer.to_lowercase(), capital, answer.to_uppercase()] {
        tokens.extend(chat.tokens(&written)?.first());
        // Where a space is a token of its own, it begins every word.
        let spaced = chat.tokens(&format!(" {written}"))?;
        tokens.extend(spaced.first().filter(|first| chat.text(&[**first]).is_ok_and(|text| !text.trim().is_empty())));
    }
    Ok(tokens)
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

    /// Among 258 tokens with score 0, "y" and "n" have 1 and "N" 2; "Y" is a beginning of "yes" too.
    #[test]
    fn answers_are_scored_by_the_tokens_they_begin_with() {
        let chat = chat();
        let mut scores = above(&chat, "y");
        scores[chat.tokens("n").unwrap()[0] as usize] = 1.0;
        scores[chat.tokens("N").unwrap()[0] as usize] = 2.0;
        let request = Request { parameters: Parameters::scores(&["yes", "no"]), ..request(None, 0.0, 0) };
        let mut speech = Speech::new(&request).unwrap();
        assert!(speech.opening(&chat).unwrap().is_empty());
        assert_eq!(speech.next(&scores, &chat).unwrap(), Next::End);
        let answer: Value = serde_json::from_str(&speech.finish(&chat).unwrap()).unwrap();
        let expected = |mass: f64| (mass / (255.0 + 2.0 * 1_f64.exp() + 2_f64.exp())).ln();
        let (yes, no) = (1.0 + 1_f64.exp(), 1_f64.exp() + 2_f64.exp());
        for (name, mass) in [("yes", yes), ("no", no)] {
            assert!((answer[name].as_f64().unwrap() - expected(mass)).abs() < 1e-6, "{answer}");
        }
        assert_eq!(speech.length(), 0, "nothing is written");
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
