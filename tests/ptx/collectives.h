// Where threads meet: barriers of blocks and warps, shuffles, votes, matches, reductions. A meeting is over when all who
// are named have come to the same line.
#pragma once

#include "machine.h"

namespace ptx {

void resolve_barrier(Block& block, u32 number);
void resolve_lanes(Block& block, u32 warp, Meeting first);

inline Meeting meet(Meeting meeting) {
    me->meeting = meeting;
    me->now = Now::WAITS;
    if (meeting.what == For::BARRIER) {
        ++me->block->barriers[meeting.mask].waiting;
        resolve_barrier(*me->block, meeting.mask);
    } else {
        if (!(meeting.mask >> me->lane & 1)) fail("line %d: lane %u is not among lanes %#x", meeting.line, me->lane, meeting.mask);
        resolve_lanes(*me->block, me->number / WARP, meeting);
    }
    go_home(me->now);
    return me->meeting;
}

inline void release(Thread* thread) {
    thread->now = Now::RUNS;
    ready.push_back(thread);
}

// Barriers of the block -----------------------------------------------------------------------------------------------

enum : u32 { SYNC, RED_POPC, RED_AND, RED_OR };

inline void resolve_barrier(Block& block, u32 number) {
    Barrier& barrier = block.barriers[number];
    const u32 expected = barrier.expected ? barrier.expected : block.live;
    if (!barrier.waiting || barrier.waiting + barrier.arrived < expected) return;
    std::vector<Thread*> here;
    for (const auto& thread : block.threads)
        if (thread->now == Now::WAITS && thread->meeting.what == For::BARRIER && thread->meeting.mask == number)
            here.push_back(thread.get());
    u64 all = 0;
    for (const Thread* thread : here) {
        const Meeting &a = here[0]->meeting, &b = thread->meeting;
        if (!barrier.expected && a.line != b.line)
            fail("barrier %u: thread %u is at line %d, thread %u at line %d", number, here[0]->number, a.line, thread->number,
                 b.line);
        all += b.given;
    }
    ++block.epoch;
    barrier = {};
    for (Thread* thread : here) {
        thread->meeting.got = all;
        thread->meeting.yes = thread->meeting.kind == RED_AND ? all == here.size() : all > 0;
        release(thread);
    }
}

inline void resolve_barriers(Block& block) {
    for (u32 number = 0; number < BARRIERS; ++number) resolve_barrier(block, number);
}

inline Barrier& barrier_for(u32 number, u32 threads, int line) {
    if (number >= BARRIERS || threads % WARP) fail("line %d: barrier %u of %u threads", line, number, threads);
    Barrier& barrier = me->block->barriers[number];
    if (barrier.expected && barrier.expected != threads)
        fail("line %d: barrier %u of %u threads, and of %u elsewhere", line, number, threads, barrier.expected);
    barrier.expected = threads;
    return barrier;
}

// 0 threads: all of the block.
inline Meeting barrier(u32 kind, u32 number, u32 threads, bool given, int line) {
    barrier_for(number, threads, line);
    return meet({.what = For::BARRIER, .line = line, .mask = number, .kind = kind, .given = given});
}

inline void barrier_arrive(u32 number, u32 threads, int line) {
    ++barrier_for(number, threads, line).arrived;
    resolve_barrier(*me->block, number);
}

// Warps ---------------------------------------------------------------------------------------------------------------

enum : u32 { IDX, UP, DOWN, BFLY };
enum : u32 { ALL, ANY, UNI, BALLOT };
enum : u32 { MATCH_ANY, MATCH_ALL };
enum : u32 { ADD, MIN, MAX, MIN_SIGNED, MAX_SIGNED, AND, OR, XOR };

inline void shuffle(Thread* const* lanes, Thread* own) {
    Meeting& m = own->meeting;
    const u32 lane = own->lane, by = m.a & 31, clamp = m.b & 31, segment = m.b >> 8 & 31;
    const int most = static_cast<int>((lane & segment) | (clamp & ~segment)), least = static_cast<int>(lane & segment);
    int from = 0;
    if (m.kind == IDX) from = least | static_cast<int>(by & ~segment);
    if (m.kind == UP) from = static_cast<int>(lane) - static_cast<int>(by);
    if (m.kind == DOWN) from = static_cast<int>(lane + by);
    if (m.kind == BFLY) from = static_cast<int>(lane ^ by);
    m.yes = m.kind == UP ? from >= most : from <= most;
    if (!m.yes) from = static_cast<int>(lane);
    m.got = lanes[from] ? lanes[from]->meeting.given : 0xA5A5A5A5;  // undefined
}

inline void vote(Meeting& m, u32 ballot, u32 there) {
    m.got = ballot;
    m.yes = m.kind == ALL ? ballot == there : m.kind == ANY ? ballot != 0 : ballot == there || ballot == 0;
}

inline u32 reduced(u32 kind, u32 a, u32 b) {
    switch (kind) {
        case ADD: return a + b;
        case MIN: return std::min(a, b);
        case MAX: return std::max(a, b);
        case MIN_SIGNED: return static_cast<u32>(std::min(static_cast<s32>(a), static_cast<s32>(b)));
        case MAX_SIGNED: return static_cast<u32>(std::max(static_cast<s32>(a), static_cast<s32>(b)));
        case AND: return a & b;
        case OR: return a | b;
        default: return a ^ b;
    }
}

// Lanes that wait with the same mask at the same line, if all who are named and not done are there.
inline void resolve_lanes(Block& block, u32 warp, Meeting first) {
    Thread* lanes[WARP] = {};
    u32 there = 0, ballot = 0;
    for (u32 i = 0; i < WARP; ++i) {
        Thread* lane = block.lane(warp, i);
        if (!(first.mask >> i & 1) || !lane || lane->now == Now::DONE) continue;
        const Meeting& at = lane->meeting;
        if (lane->now != Now::WAITS || at.what != first.what || at.mask != first.mask || at.line != first.line) return;
        lanes[i] = lane;
        there |= 1u << i;
        ballot |= static_cast<u32>(at.given & 1) << i;
    }
    if (first.what == For::WARP) ++block.warp_epoch[warp];
    for (Thread* own : lanes) {
        if (!own) continue;
        Meeting& m = own->meeting;
        if (m.what == For::SHUFFLE) shuffle(lanes, own);
        if (m.what == For::VOTE) vote(m, ballot, there);
        if (m.what == For::MATCH) {
            u32 equal = 0;
            for (u32 i = 0; i < WARP; ++i) equal |= u32{lanes[i] && lanes[i]->meeting.given == m.given} << i;
            m.yes = m.kind == MATCH_ANY || equal == there;
            m.got = m.yes ? equal : 0;
        }
        if (m.what == For::REDUCE) {
            bool any = false;
            for (Thread* lane : lanes) {
                if (!lane) continue;
                const u32 value = static_cast<u32>(lane->meeting.given);
                m.got = any ? reduced(m.kind, static_cast<u32>(m.got), value) : value;
                any = true;
            }
        }
    }
    for (Thread* own : lanes)
        if (own) release(own);
}

inline void resolve_warp(Block& block, u32 warp) {
    for (u32 i = 0; i < WARP; ++i) {
        const Thread* lane = block.lane(warp, i);
        if (lane && lane->now == Now::WAITS && lane->meeting.what != For::BARRIER) resolve_lanes(block, warp, lane->meeting);
    }
}

inline u32 shfl(u32 kind, u32 value, u32 by, u32 clamp, u32 mask, bool& inside, int line) {
    const Meeting m = meet({.what = For::SHUFFLE, .line = line, .mask = mask, .kind = kind, .given = value, .a = by, .b = clamp});
    inside = m.yes;
    return static_cast<u32>(m.got);
}
inline Meeting vote(u32 kind, bool given, u32 mask, int line) {
    return meet({.what = For::VOTE, .line = line, .mask = mask, .kind = kind, .given = given});
}
inline u32 match(u32 kind, u64 given, u32 mask, bool& all, int line) {
    const Meeting m = meet({.what = For::MATCH, .line = line, .mask = mask, .kind = kind, .given = given});
    all = m.yes;
    return static_cast<u32>(m.got);
}
inline u32 redux(u32 kind, u32 given, u32 mask, int line) {
    return static_cast<u32>(meet({.what = For::REDUCE, .line = line, .mask = mask, .kind = kind, .given = given}).got);
}
inline void warp_sync(u32 mask, int line) { meet({.what = For::WARP, .line = line, .mask = mask}); }

}  // namespace ptx
