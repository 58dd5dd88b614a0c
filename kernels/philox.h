// Equals law/philox.py and law/address.py: four words from a counter and a key, and how an address becomes a counter.
#pragma once

#include "lane.h"

namespace SG_NAMESPACE {

constexpr int PHILOX_ROUNDS = 10;
constexpr uint32_t PHILOX_M0 = 0xD2511F53, PHILOX_M1 = 0xCD9E8D57;
constexpr uint32_t PHILOX_W0 = 0x9E3779B9, PHILOX_W1 = 0xBB67AE85;

constexpr int MAX_ATTEMPTS = 256;

enum Purpose : uint32_t { COUNT = 0, GAP = 1, DATA = 2, IMAGE = 3, AUDIO = 4, VIDEO = 5, TURN = 6 };

struct Key {
    uint32_t k0, k1;
};

struct Words {
    uint32_t w0, w1, w2, w3;
};

// What carries a word through the rounds: 64-bit lanes where the vector extension multiplies words into those.
#if defined(__AVX2__)
using Carrier = uint64_t;
#else
using Carrier = uint32_t;
#endif

SG_DEVICE Words philox4x32(Words counter, Key key) {
    Carrier c0 = counter.w0, c1 = counter.w1, c2 = counter.w2, c3 = counter.w3;
    for (int round = 0; round < PHILOX_ROUNDS; ++round) {
        const uint64_t even = static_cast<uint64_t>(static_cast<uint32_t>(c0)) * PHILOX_M0;
        const uint64_t odd = static_cast<uint64_t>(static_cast<uint32_t>(c2)) * PHILOX_M1;
        c0 = static_cast<Carrier>(odd >> 32) ^ c1 ^ key.k0;
        c1 = static_cast<Carrier>(odd);
        c2 = static_cast<Carrier>(even >> 32) ^ c3 ^ key.k1;
        c3 = static_cast<Carrier>(even);
        key.k0 += PHILOX_W0;
        key.k1 += PHILOX_W1;
    }
    return {static_cast<uint32_t>(c0), static_cast<uint32_t>(c1), static_cast<uint32_t>(c2), static_cast<uint32_t>(c3)};
}

// The keys of all rounds, for a device: a constant that an instruction reads costs nothing.
struct RoundKeys {
    Key round[PHILOX_ROUNDS];
};

struct Product {
    uint32_t low, high;
};

SG_DEVICE Product product(uint32_t a, uint32_t b) {
#if defined(__CUDA_ARCH__)
    Product of;
    asm("{ .reg .u64 p; mul.wide.u32 p, %2, %3; mov.b64 {%0, %1}, p; }" : "=r"(of.low), "=r"(of.high) : "r"(a), "r"(b));
    return of;
#else
    const uint64_t p = static_cast<uint64_t>(a) * b;
    return {static_cast<uint32_t>(p), static_cast<uint32_t>(p >> 32)};
#endif
}

SG_DEVICE Words philox4x32(Words c, const RoundKeys& keys) {
    SG_UNROLL for (int r = 0; r < PHILOX_ROUNDS; ++r) {
        const Product even = product(c.w0, PHILOX_M0), odd = product(c.w2, PHILOX_M1);
        c = {odd.high ^ c.w1 ^ keys.round[r].k0, odd.low, even.high ^ c.w3 ^ keys.round[r].k1, even.low};
    }
    return c;
}

// Words 2 and 3 of a counter.
SG_DEVICE uint32_t place_of(uint32_t window, Purpose purpose, uint32_t stream = 0) {
    return window | static_cast<uint32_t>(purpose) << 24 | stream << 29;
}

SG_DEVICE uint32_t detail_of(uint32_t turn, uint32_t item) { return turn | item << 16; }

SG_DEVICE uint32_t item_of(uint32_t detail) { return detail >> 16; }

// Of GAP, the item is which try of a rejection method.
template <class Keys>
SG_DEVICE Words draw(const Keys& keys, Purpose purpose, uint32_t ordinal, uint32_t client, uint32_t window, uint32_t item = 0,
                     uint32_t turn = 0, uint32_t stream = 0) {
    return philox4x32(Words{ordinal, client, place_of(window, purpose, stream), detail_of(turn, item)}, keys);
}

}  // namespace SG_NAMESPACE
