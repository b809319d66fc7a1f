"""Speech in and out: recordings and microphones to questions, answers to loudspeakers and recordings. Never torch."""
