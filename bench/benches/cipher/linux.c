/*
 * RC4 by a loop of the shape that Linux has: entries of 32 bits, and the next one is loaded before the key stream's
 * octet is. In C, because that is what Linux is compiled from; by the same compiler at the same -O2.
 */
#include <stddef.h>
#include <stdint.h>

struct rc4 {
	uint32_t s[256];
	uint32_t x, y;
};

void turnpike_bench_rc4_key(struct rc4 *rc4, const uint8_t *key, size_t len)
{
	uint32_t j = 0;
	size_t k = 0;

	rc4->x = 1;
	rc4->y = 0;
	for (int i = 0; i < 256; i++)
		rc4->s[i] = i;
	for (int i = 0; i < 256; i++) {
		uint32_t a = rc4->s[i];

		j = (j + key[k] + a) & 0xff;
		rc4->s[i] = rc4->s[j];
		rc4->s[j] = a;
		if (++k >= len)
			k = 0;
	}
}

void turnpike_bench_rc4(struct rc4 *rc4, uint8_t *data, size_t len)
{
	uint32_t *const s = rc4->s;
	uint32_t x, y, a, b, next_a, next_b, next_y, at;

	if (len == 0)
		return;
	x = rc4->x;
	a = s[x];
	y = (rc4->y + a) & 0xff;
	b = s[y];
	for (;;) {
		s[y] = a;
		at = (a + b) & 0xff;
		s[x] = b;
		x = (x + 1) & 0xff;
		next_a = s[x];
		next_y = (y + next_a) & 0xff;
		next_b = s[next_y];
		*data++ ^= s[at];
		if (--len == 0)
			break;
		y = next_y;
		a = next_a;
		b = next_b;
	}
	rc4->x = x;
	rc4->y = y;
}
