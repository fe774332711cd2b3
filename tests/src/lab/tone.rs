#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
//! Is a recording the sine that the other side sent?
//!
//! Two witnesses have to agree: the zero crossings tell the pitch, and Goertzel's filter tells how
//! much of the sound's power stands at the expected pitch. Noise can give the right number of
//! crossings, and a faint tone under noise the right peak; hardly anything gives both.

use super::wav::Recording;
use std::f64::consts::TAU;

/// What was heard.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heard {
    /// Length of the recording in seconds, silence included.
    pub seconds: f64,
    /// Pitch by zero crossings of the sounding part.
    pub hertz: f64,
    /// Share of the power of the sounding part that stands at the expected pitch, 0 to 1.
    pub purity: f64,
    /// Root mean square of the sounding part, in units of a sample.
    pub loudness: f64,
}

impl Heard {
    /// Whether this is the sine of `hertz`, and loud enough to be one at all.
    #[must_use]
    pub fn is_tone(&self, hertz: f64) -> bool {
        (self.hertz - hertz).abs() <= hertz * PITCH_TOLERANCE
            && self.purity >= PURITY_MIN
            && self.loudness >= LOUDNESS_MIN
    }
}

/// Judges `recording` against a sine of `expected` hertz.
///
/// The first and last quarter are left out: they hold the beginning and end of the call.
#[must_use]
pub fn listen(recording: &Recording, expected: f64) -> Heard {
    let rate = f64::from(recording.rate);
    let all = recording.samples.len();
    let heard = &recording.samples[all / 4..all - all / 4];
    let samples: Vec<f64> = heard.iter().map(|&sample| f64::from(sample)).collect();
    let power = samples.iter().map(|sample| sample * sample).sum::<f64>();
    let count = count(samples.len()).max(1.0);
    Heard {
        seconds: self::count(all) / rate.max(1.0),
        hertz: crossings(&samples) / 2.0 / (count / rate.max(1.0)),
        purity: purity(&samples, expected, rate, power),
        loudness: (power / count).sqrt(),
    }
}

fn crossings(samples: &[f64]) -> f64 {
    let crossed = samples
        .windows(2)
        .filter(|pair| (pair[0] < 0.0) != (pair[1] < 0.0))
        .count();
    count(crossed)
}

/// Goertzel's filter in blocks: a long block would be so narrow that a clock's drift leaves it.
fn purity(samples: &[f64], hertz: f64, rate: f64, power: f64) -> f64 {
    if power <= 0.0 || rate <= 0.0 {
        return 0.0;
    }
    let coefficient = 2.0 * (TAU * hertz / rate).cos();
    let found: f64 = samples
        .chunks(BLOCK)
        .map(|block| {
            let (last, before) = block.iter().fold((0.0, 0.0), |(last, before), sample| {
                (sample + coefficient * last - before, last)
            });
            let energy = last * last + before * before - coefficient * last * before;
            // A pure sine of amplitude A has A²N/2 power and A²N²/4 energy in its bin.
            2.0 * energy / count(block.len())
        })
        .sum();
    (found / power).min(1.0)
}

fn count(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::MAX, f64::from)
}

const BLOCK: usize = 400;
/// PCMU and two sample-rate converters stay far inside; the next musical half-tone is 6 % away.
const PITCH_TOLERANCE: f64 = 0.02;
const PURITY_MIN: f64 = 0.8;
/// baresip's `ausine` is some 40 dB louder.
const LOUDNESS_MIN: f64 = 50.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sine_is_itself_and_no_other() {
        let heard = listen(&sine(440.0, 8000.0), 440.0);
        assert!(heard.is_tone(440.0), "{heard:?}");
        assert!((heard.hertz - 440.0).abs() < 2.0, "{heard:?}");
        assert!((heard.seconds - 2.0).abs() < 0.01, "{heard:?}");
        assert!(!listen(&sine(440.0, 8000.0), 880.0).is_tone(880.0));
        assert!(!listen(&sine(460.0, 8000.0), 440.0).is_tone(440.0));
    }

    #[test]
    fn silence_and_noise_are_no_tone() {
        let silence = Recording {
            rate: 8000,
            samples: vec![0; 16_000],
        };
        assert!(!listen(&silence, 440.0).is_tone(440.0));
        assert!(
            !listen(
                &Recording {
                    rate: 8000,
                    samples: Vec::new()
                },
                440.0
            )
            .is_tone(440.0)
        );
        let mut state = 1_u32;
        let noise = (0..16_000).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            i16::from_le_bytes([state.to_le_bytes()[2], state.to_le_bytes()[3]])
        });
        let noise = Recording {
            rate: 8000,
            samples: noise.collect(),
        };
        let pitch = listen(&noise, 440.0).hertz;
        assert!(
            !listen(&noise, pitch).is_tone(pitch),
            "noise crosses zero at its own pitch"
        );
    }

    #[test]
    fn a_tone_that_stops_in_the_middle_is_not_accepted() {
        let mut broken = sine(440.0, 8000.0);
        let half = broken.samples.len() / 2;
        broken.samples[half..].fill(0);
        assert!(!listen(&broken, 440.0).is_tone(440.0));
    }

    #[expect(clippy::cast_possible_truncation, reason = "a sample is below 32768")]
    fn sine(hertz: f64, amplitude: f64) -> Recording {
        let samples = (0..16_000)
            .map(|n| (amplitude * (TAU * hertz * f64::from(n) / 8000.0).sin()) as i16)
            .collect();
        Recording {
            rate: 8000,
            samples,
        }
    }
}
