// The device that a CPU plays: blocks of threads, each a fiber that runs until it waits for others. Who goes on is drawn at
// random, so that what depends on the order of threads shows sooner or later. Threads that wait for ever are an error.
#pragma once

#include <csetjmp>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

#include "instructions.h"

namespace ptx {

struct Dim {
    u32 x, y, z;
    u64 all() const { return u64{x} * y * z; }
    Dim at(u64 i) const { return {static_cast<u32>(i % x), static_cast<u32>(i / x % y), static_cast<u32>(i / x / y)}; }
};

using Kernel = void (*)(u64 params);

struct Launch {
    Kernel kernel;
    bool waits;  // whether its threads ever wait for others
    u64 params;
    Dim grid, block;
    u32 static_bytes, dynamic_bytes;  // of shared memory
};

// What a thread waits for, and what it brings along.
enum class For { NOTHING, SHUFFLE, VOTE, MATCH, REDUCE, WARP, BARRIER };
struct Meeting {
    For what = For::NOTHING;
    int line = 0;
    u32 mask = 0;  // the lanes that meet; of a barrier, its number
    u32 kind = 0;  // which of the shuffles, votes, …
    u64 given = 0;
    u32 a = 0, b = 0;
    u64 got = 0;
    bool yes = false;
};

struct Block;
enum class Now { RUNS, WAITS, YIELDS, DONE };

struct Thread {
    Dim at;
    u32 number, lane;  // in the block, in the warp
    Block* block;
    Now now;
    Meeting meeting;
    jmp_buf resume;
    bool started = false;
    ucontext_t start;
};

struct Barrier {
    u32 waiting = 0, arrived = 0;  // threads that wait; that came and do not
    u32 expected = 0;              // 0: all that are not done
};

constexpr u32 WARP = 32, BARRIERS = 16, MOST_THREADS = 1024;
constexpr size_t STACK_BYTES = 1 << 16;

// Shared memory, and who used it last; memory.h finds races by it.
struct Use {
    u32 thread = 0, warp = 0;
    u64 epoch = 0, warp_epoch = 0;
    bool atomic = false;
};
struct Uses {
    Use write, read;
};

struct Block {
    Dim at;
    u32 live = 0;
    std::vector<std::unique_ptr<Thread>> threads;
    std::vector<u8> shared;
    std::vector<Uses> uses;
    Barrier barriers[BARRIERS];
    u64 epoch = 1, began = 1;          // of barriers of the block
    u64 warp_epoch[MOST_THREADS / WARP] = {};  // of barriers of its warps
    u8* stacks = static_cast<u8*>(mmap(nullptr, MOST_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));

    Block() = default;
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;
    ~Block() { munmap(stacks, MOST_THREADS * STACK_BYTES); }

    u32 warps() const { return static_cast<u32>((threads.size() + WARP - 1) / WARP); }
    Thread* lane(u32 warp, u32 lane) const {
        const size_t i = warp * WARP + lane;
        return i < threads.size() ? threads[i].get() : nullptr;
    }
};

inline Launch launched;
inline Thread* me;
inline jmp_buf home;
inline std::vector<Thread*> ready;
inline u64 random_state;
inline char failure[4096];

inline u64 random_word() {  // splitmix64
    u64 x = random_state += 0x9E3779B97F4A7C15;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9;
    x = (x ^ x >> 27) * 0x94D049BB133111EB;
    return x ^ x >> 31;
}

enum { BACK = 1, FAILED = 2 };

// Ends the launch.
[[noreturn]] __attribute__((format(printf, 1, 2))) inline void fail(const char* format, ...) {
    va_list given;
    va_start(given, format);
    const int n = std::snprintf(failure, sizeof failure, "block %u thread %u: ", me->block->at.x, me->number);
    std::vsnprintf(failure + n, sizeof failure - n, format, given);
    va_end(given);
    _longjmp(home, FAILED);
}

inline void go_home(Now now) {
    me->now = now;
    if (!_setjmp(me->resume)) _longjmp(home, BACK);
}

// Lets others go on: threads that look at memory until it changes must.
inline void yield() {
    if (launched.waits) go_home(Now::YIELDS);
}

inline void live() {  // a fiber, over and over again
    for (;;) {
        launched.kernel(launched.params);
        go_home(Now::DONE);
    }
}

void resolve_warp(Block& block, u32 warp);  // collectives.h: whoever has met goes on
void resolve_barriers(Block& block);

[[noreturn]] inline void step(Thread* thread) {
    me = thread;
    thread->now = Now::RUNS;
    if (thread->started) _longjmp(thread->resume, 1);
    thread->started = true;
    getcontext(&thread->start);
    thread->start.uc_stack.ss_sp = thread->block->stacks + thread->number * STACK_BYTES;
    thread->start.uc_stack.ss_size = STACK_BYTES;
    makecontext(&thread->start, live, 0);
    setcontext(&thread->start);
    std::abort();
}

inline void begin(Block& block, Dim at) {
    const u64 threads = launched.block.all();
    block.threads.resize(threads);
    block.at = at, block.live = static_cast<u32>(threads);
    block.shared.assign(launched.static_bytes + launched.dynamic_bytes, 0xA5);
    block.uses.resize(block.shared.size());
    block.began = ++block.epoch;
    for (Barrier& barrier : block.barriers) barrier = {};
    for (u32 i = 0; i < threads; ++i) {
        auto& thread = block.threads[i];
        if (!thread) thread = std::make_unique<Thread>();
        thread->at = launched.block.at(i), thread->number = i, thread->lane = i % WARP, thread->block = &block;
        thread->meeting = {}, thread->now = Now::RUNS;
    }
}

inline const char* name_of(For what) {
    const char* names[] = {"nothing", "a shuffle", "a vote", "a match", "a reduction", "its warp", "a barrier"};
    return names[static_cast<int>(what)];
}

// Nobody can go on: says who waits where.
inline void say_deadlock(const std::vector<std::unique_ptr<Block>>& blocks) {
    std::string said = "deadlock:";
    int places = 0;
    for (const auto& block : blocks)
        for (u32 i = 0, before = 0; i < block->threads.size() && places < 12; ++i) {
            const Thread& thread = *block->threads[i];
            if (thread.now == Now::DONE) continue;
            const Meeting& at = thread.meeting;
            if (places && static_cast<int>(before) == at.line) continue;  // as the thread before
            before = static_cast<u32>(at.line), ++places;
            char text[160];
            std::snprintf(text, sizeof text, " block %u thread %u waits at line %d for %s, %s %#x;", block->at.x, i, at.line,
                          name_of(at.what), at.what == For::BARRIER ? "number" : "lanes", at.mask);
            said += text;
        }
    std::snprintf(failure, sizeof failure, "%s", said.c_str());
}

// One thread to its end after another: for kernels whose threads never wait.
inline bool run_plain(Block& block, const std::vector<u32>& order) {
    if (_setjmp(home)) return false;
    std::vector<u32> threads(launched.block.all());
    for (u32 i = 0; i < threads.size(); ++i) threads[i] = i;
    for (const u32 number : order) {
        begin(block, launched.grid.at(number));
        for (size_t left = threads.size(); left > 0; --left) {
            std::swap(threads[random_word() % left], threads[left - 1]);
            me = block.threads[threads[left - 1]].get();
            launched.kernel(launched.params);
        }
    }
    return true;
}

constexpr u64 MOST_YIELDS = 20'000'000;

// Fibers of some blocks at once; the next block begins where one ends.
inline bool run_fibers(std::vector<std::unique_ptr<Block>>& blocks, const std::vector<u32>& order) {
    static u64 yields;
    static size_t next;
    yields = 0, next = 0;
    ready.clear();
    const auto enter = [&](Block& block) {
        begin(block, launched.grid.at(order[next++]));
        for (const auto& thread : block.threads) ready.push_back(thread.get());
    };
    for (const auto& block : blocks)
        if (next < order.size()) enter(*block);
    const int came = _setjmp(home);
    if (came == FAILED) return false;
    if (came == BACK) {
        Block& block = *me->block;
        if (me->now == Now::YIELDS) {
            ready.push_back(me);
            if (++yields > MOST_YIELDS) {
                std::snprintf(failure, sizeof failure, "threads look at memory that nobody changes");
                return false;
            }
        } else {
            yields = 0;
        }
        if (me->now == Now::DONE) {
            if (--block.live) {
                resolve_warp(block, me->number / WARP);
                resolve_barriers(block);
            } else if (next < order.size()) {
                enter(block);
            }
        }
    }
    if (ready.empty()) {
        for (const auto& block : blocks)
            if (block->live) {
                say_deadlock(blocks);
                return false;
            }
        return true;
    }
    const size_t chosen = random_word() % ready.size();
    Thread* thread = ready[chosen];
    ready[chosen] = ready.back();
    ready.pop_back();
    step(thread);
}

}  // namespace ptx
