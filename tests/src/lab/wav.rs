#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
//! Reading a recording: RIFF/WAVE, 16-bit PCM, as baresip's `sndfile` module writes it.

/// One channel of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// Samples per second.
    pub rate: u32,
    /// The samples of the first channel.
    pub samples: Vec<i16>,
}

/// Why a file is not a recording that we can judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WavError {
    /// It does not begin with a RIFF header of the form WAVE.
    NotWave,
    /// It holds no `fmt ` chunk before the samples.
    NoFormat,
    /// The samples are not 16-bit PCM.
    NotPcm16,
    /// It holds no `data` chunk.
    NoSamples,
}

impl std::fmt::Display for WavError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotWave => "not a RIFF/WAVE file",
            Self::NoFormat => "no format before the samples",
            Self::NotPcm16 => "not 16-bit PCM",
            Self::NoSamples => "no samples",
        })
    }
}

impl std::error::Error for WavError {}

/// Reads a whole file. A length that points past the end (the writer was killed) is cut short.
pub fn read(file: &[u8]) -> Result<Recording, WavError> {
    let Some((b"RIFF", rest)) = file.split_first_chunk::<4>() else {
        return Err(WavError::NotWave);
    };
    let Some(mut chunks) = rest.get(4..).and_then(|form| form.strip_prefix(b"WAVE")) else {
        return Err(WavError::NotWave);
    };
    let mut format = None;
    while let Some((name, body, rest)) = chunk(chunks) {
        match &name {
            b"fmt " => format = Some(Format::read(body)?),
            b"data" => {
                let Format { rate, channels } = format.ok_or(WavError::NoFormat)?;
                return Ok(Recording {
                    rate,
                    samples: first_channel(body, channels),
                });
            }
            _ => {}
        }
        chunks = rest;
    }
    Err(WavError::NoSamples)
}

#[derive(Clone, Copy)]
struct Format {
    rate: u32,
    channels: usize,
}

impl Format {
    /// `wFormatTag nChannels nSamplesPerSec nAvgBytesPerSec nBlockAlign wBitsPerSample`.
    fn read(body: &[u8]) -> Result<Self, WavError> {
        let half = |at: usize| {
            let bytes = body.get(at..at + 2).ok_or(WavError::NoFormat)?;
            Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
        };
        if !matches!(half(0)?, TAG_PCM | TAG_EXTENSIBLE) || half(14)? != 16 || half(2)? == 0 {
            return Err(WavError::NotPcm16);
        }
        Ok(Self {
            rate: u32::from(half(4)?) | u32::from(half(6)?) << 16,
            channels: usize::from(half(2)?),
        })
    }
}

/// Name, body and what follows; chunks are padded to an even length.
fn chunk(bytes: &[u8]) -> Option<([u8; 4], &[u8], &[u8])> {
    let (name, rest) = bytes.split_first_chunk::<4>()?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_le_bytes(*len))
        .ok()?
        .min(rest.len());
    let padded = (len + len % 2).min(rest.len());
    Some((*name, &rest[..len], &rest[padded..]))
}

fn first_channel(body: &[u8], channels: usize) -> Vec<i16> {
    body.chunks_exact(2)
        .step_by(channels)
        .map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
        .collect()
}

const TAG_PCM: u16 = 1;
const TAG_EXTENSIBLE: u16 = 0xfffe;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn the_first_of_two_channels_is_read() {
        let file = wave(8000, 2, &[1, -1, 2, -2, 3, -3]);
        let heard = read(&file).expect("a wave file");
        assert_eq!(
            heard,
            Recording {
                rate: 8000,
                samples: vec![1, 2, 3]
            }
        );
    }

    #[test]
    fn every_cut_of_a_file_is_an_error_or_a_shorter_recording() {
        let file = wave(8000, 1, &[1, 2, 3, 4]);
        for cut in 0..file.len() {
            if let Ok(heard) = read(&file[..cut]) {
                assert!(heard.samples.len() <= 4, "cut at {cut}");
                assert_eq!(heard.samples, [1, 2, 3, 4][..heard.samples.len()]);
            }
        }
    }

    #[test]
    fn what_is_not_a_recording_is_named() {
        assert_eq!(read(b""), Err(WavError::NotWave));
        assert_eq!(read(b"RIFF\0\0\0\0AVI "), Err(WavError::NotWave));
        assert_eq!(read(b"RIFF\0\0\0\0WAVE"), Err(WavError::NoSamples));
        assert_eq!(
            read(b"RIFF\0\0\0\0WAVEdata\0\0\0\0"),
            Err(WavError::NoFormat)
        );
        let mut eight_bit = wave(8000, 1, &[1]);
        eight_bit[34] = 8;
        assert_eq!(read(&eight_bit), Err(WavError::NotPcm16));
    }

    /// A wave file with interleaved `samples`.
    pub(crate) fn wave(rate: u32, channels: u16, samples: &[i16]) -> Vec<u8> {
        let data: Vec<u8> = samples
            .iter()
            .flat_map(|sample| sample.to_le_bytes())
            .collect();
        let mut file = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0".to_vec();
        file.extend(channels.to_le_bytes());
        file.extend(rate.to_le_bytes());
        file.extend((rate * u32::from(channels) * 2).to_le_bytes());
        file.extend((channels * 2).to_le_bytes());
        file.extend(16_u16.to_le_bytes());
        file.extend(b"data");
        file.extend(u32::try_from(data.len()).expect("short").to_le_bytes());
        file.extend(data);
        file
    }
}
