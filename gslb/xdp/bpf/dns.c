// Answers DNS queries at the network driver from an image of packed answers, and
// passes whatever it does not know, or is not sure of, to the sockets.
//
// The image is one map, made by the package above, which replaces it as a whole:
// a query sees the one that is there when it comes, to its end. Its parts refer
// to each other by places. "make xdp-object" compiles this file.

#include <stdbool.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#ifndef SOURCE
#error "SOURCE is the checksum of this file; build.sh gives it"
#endif

// What the object is made of, for who looks into it.
const char SOURCE_SUM[] SEC("source") = SOURCE;
const char COMPILER[] SEC("compiler") = __clang_version__;

// The helpers called are open to programs under any license.
char LICENSE[] SEC("license") = "Apache-2.0";

// What became of a packet to the server, as the package above lists it.
enum outcome {
	ANSWERED,
	STALE,     // the process has not been heard of, or there is no image
	SHAPE,     // not a query of the usual form
	OPTION,    // an EDNS option other than one well-formed client subnet
	CHECKSUM,  // damaged, or a checksum that the sender's device was to fill in
	NAME,      // no entry for the name
	ANSWER,    // an entry without an answer to this type, or not for this client
	SIGNATURE, // DNSSEC records are asked for
	SIZE,      // the answer is too long
	LIMIT,     // over the rate limit
	ROOM,      // the driver has no room for the answer
	FAULT,     // a packet that was changed and could not be sent
	OUTCOMES,
};

#define PAGE 4096      // octets of one element of an image
#define UNIT 8         // octets; places of records count in these
#define NAME_MAX 128   // octets of a name in wire form
#define LABELS_MAX 64  // of such a name, and one
#define PARENTS_MAX 8  // names above that are looked for
#define QUERY_MAX 184  // octets of a message; the longest that passes has 183
#define BODY_MAX 512   // octets of records in a packed answer
#define MESSAGE_MAX 1024
#define UDP_PAYLOAD 1232 // as the sockets give and take
#define L3_MAX 18        // octets before the IP header
#define L4_MAX (L3_MAX + 40)
#define SLOTS 16         // of a bucket
#define TYPES_MAX 16     // of an entry
#define MOVING_MAX 8     // pointers of an answer
#define ADDRESSES_MAX 8
#define SECOND 1000000000ULL

struct image {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_INNER_MAP | BPF_F_MMAPABLE);
	__uint(max_entries, 1); // or more
	__uint(key_size, 4);
	__uint(value_size, PAGE);
};

// The image in force.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct image);
} current SEC(".maps");

struct endpoint {
	__u8 address[16]; // IPv4 as ::ffff:0:0/96
	__be16 port;
	__u16 zero;
};

// The addresses that the server has at the moment.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct endpoint);
	__type(value, __u8);
} endpoints SEC(".maps");

struct control {
	__u64 until;    // CLOCK_MONOTONIC in ns after which the image is not trusted
	__u64 interval; // ns between equal answers to one network; 0: no limit
	__u8 mac[6];    // of the interface
	__u16 zero;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct control);
} controls SEC(".maps");

struct client {
	__u64 answer;
	__u64 network;
};

// The time, in ns, until which the answers sent so far have used up the rate.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 131072);
	__type(key, struct client);
	__type(value, __u64);
} rates SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, OUTCOMES);
	__type(key, __u32);
	__type(value, __u64);
} outcomes SEC(".maps");

// A packet to the server, as far as it has been read.
struct query {
	__u32 l3, l4; // places of the headers
	__u32 size;   // of the message
	__u32 end;    // of the question
	__u32 named;  // length of the name
	__u32 limit;  // on the answer's size
	__u32 subnet; // length of the option's data; 0: there is none
	__u32 source; // length of the subnet's prefix
	__u16 qtype;
	__u8 ipv6, edns, dnssec; // 0 or 1
	__u8 asker6; // family of the client that the decision is for
};

// Where a query is read and its answer is made. What one step hands to the next
// goes through here as well: the verifier does not follow it, so that the steps
// after it are verified once, and not for each way to come there.
struct workspace {
	__u8 msg[MESSAGE_MAX + 128]; // with room for what is written too far
	__u8 name[2 * NAME_MAX + 8]; // lowered, and room to read past its end
	__u8 source[16], destination[16];
	__u8 asker[16]; // whom the decision is for
	__u8 subnet[24];
	__u8 link[24];  // the Ethernet header
	__be16 ports[2]; // source and destination
	struct query query;
	__u32 value;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct workspace);
} workspaces SEC(".maps");

// Records of the image, in the byte order of the machine where not said else.
struct header {
	__u64 seed;
	__u32 mask;    // number of buckets less one
	__u32 buckets; // page of the first
	__u32 exempt[2]; // trees of the networks without rate limit, by family
};

struct slot {
	__u32 tag;
	__u32 entry; // 0: this slot and those after it are free
};

struct bucket {
	struct slot slots[SLOTS];
};

struct type {
	__u16 qtype;
	__u16 zero;
	__u32 answer; // 0: for the sockets
};

// An entry is followed by its types, those of the name itself first, and then by
// the name, filled up with zeros to a multiple of 8.
struct entry {
	__u8 length, types, below, zero;
	__u32 other, below_other; // answers to all types that are not listed
	__u32 zero2;
};

#define ENTRY_MAX (sizeof(struct entry) + TYPES_MAX * sizeof(struct type) + NAME_MAX)

// An answer is followed by its body.
struct answer {
	__u64 id; // tells answers apart for the rate limit
	__be16 flags, answers, authorities, additionals;
	__u32 steering; // 0: the same for all clients
	__be32 ttl;     // of the addresses
	__be16 owner;   // of the addresses: a compression pointer
	__u16 body;     // octets
	__u8 base;      // length of the name that the body was packed for
	__u8 secure;    // a signed zone has a part in it
	__u8 ipv6;      // family of the addresses
	__u8 moving;    // pointers that move with the length of the name
	__u16 pointers[MOVING_MAX];
};

struct steering {
	__u32 trees[2]; // by the client's family
	__u32 nowhere;  // decision for clients that do not say where they are
	__u32 choices;  // the first of the decisions' addresses
};

struct addresses {
	__u32 count;
	__u32 zero;
	__u8 octets[ADDRESSES_MAX * 16];
};

// A tree's node has a child for each value of four bits. Children and roots are
// nodes, in units of 64 octets, or leaves.
#define LEAF 0x80000000
#define LEAF_DEPTH(child) (((child) >> 23) & 0xff)
#define LEAF_DECISION(child) ((child) & UNDECIDED)
#define UNDECIDED 0x7fffff

struct node {
	__u32 children[16];
};

// step ends a step: what follows reads the workspace again.
#define step() asm volatile("" ::: "memory")

// forget returns a value of which the verifier knows no bounds.
static __always_inline __u32 forget(struct workspace *w, __u32 value)
{
	*(volatile __u32 *)&w->value = value;
	return *(volatile __u32 *)&w->value;
}

#define get16(p) (*(__u16 *)(p))
#define get32(p) (*(__u32 *)(p))
#define get64(p) (*(__u64 *)(p))

static __always_inline void copy16(void *to, const void *from)
{
	get64(to) = get64(from);
	get64(to + 8) = get64(from + 8);
}

// keep makes the compiler keep a value that was checked, where it would make an
// equal one anew, which the verifier could not know to be within the bounds.
#define keep(value) asm volatile("" : "+r"(value))

// sum adds octets to a checksum as 32-bit words; octets is a multiple of 8.
static __always_inline __u64 sum(__u64 total, const void *from, __u32 octets)
{
	for (__u32 at = 0; at < octets; at += 8) {
		__u64 word = get64(from + at);
		total += (word & 0xffffffff) + (word >> 32);
	}
	return total;
}

// folded is the 16-bit checksum of a sum, not yet complemented.
static __always_inline __u16 folded(__u64 total)
{
	total = (total & 0xffffffff) + (total >> 32);
	total = (total & 0xffff) + (total >> 16);
	total = (total & 0xffff) + (total >> 16);
	return (total & 0xffff) + (total >> 16);
}

// pseudo sums what the UDP checksum covers beside the message: the pseudo header
// (RFC 768; RFC 8200 section 8.1) and the ports.
static __always_inline __u64 pseudo(struct workspace *w, struct query *q, struct udphdr *udp)
{
	__u64 total = 0;
	if (q->ipv6)
		total = sum(sum(total, w->source, 16), w->destination, 16);
	else
		total = (__u64)get32(w->source + 12) + get32(w->destination + 12);
	return total + bpf_htons(IPPROTO_UDP) + udp->source + udp->dest + 2 * (__u64)udp->len;
}

// page returns an element of the image.
static __always_inline void *page(void *image, __u32 at)
{
	return bpf_map_lookup_elem(image, &at);
}

// record returns the record of a size at a place, which it does not cross a page.
static __always_inline void *record(void *image, __u32 place, __u32 size)
{
	__u8 *p = page(image, place / (PAGE / UNIT));
	__u32 off = place % (PAGE / UNIT) * UNIT;
	keep(off);
	if (!p || off > PAGE - size)
		return 0;
	return p + off;
}

// decide looks an address of 16 octets, or of 4, up in a tree. It returns a leaf.
static __always_inline __u32 decide(void *image, __u32 child, const __u8 *address, bool ipv6)
{
	__u32 last = ipv6 ? 32 : 8;
	for (__u32 i = 0; i < 32; i++) {
		if (child & LEAF)
			return child;
		if (i >= last)
			break;
		__u8 *p = page(image, child / (PAGE / sizeof(struct node)));
		if (!p)
			break;
		struct node *n = (void *)p + child % (PAGE / sizeof(struct node)) * sizeof(struct node);
		__u8 octet = address[i / 2];
		child = n->children[(i & 1 ? octet : octet >> 4) & 15];
	}
	return child & LEAF ? child : LEAF | UNDECIDED;
}

// hash hashes length octets of the lowered name from off on, by 8 at a time.
static __always_inline __u64 hash(struct workspace *w, __u32 off, __u32 length, __u64 h)
{
	for (__u32 i = 0; i < NAME_MAX; i += 8) {
		if (i >= length)
			break;
		__u64 word = get64(w->name + ((off + i) & 0xff));
		if (length - i < 8)
			word &= (1ULL << (length - i) * 8) - 1;
		h = (h ^ word) * 0x9e3779b97f4a7c15;
		h ^= h >> 32;
	}
	return h;
}

// find returns the entry of the part of the lowered name from off on.
static __always_inline struct entry *find(void *image, struct header *head, struct workspace *w, __u32 off, __u32 length)
{
	__u64 h = hash(w, off, length, head->seed);
	length = forget(w, length);
	__u32 at = h & head->mask, tag = h >> 32, place = 0;
	__u8 *p = page(image, head->buckets + at / (PAGE / sizeof(struct bucket)));
	if (!p)
		return 0;
	struct bucket *b = (void *)p + at % (PAGE / sizeof(struct bucket)) * sizeof(struct bucket);
	for (int i = 0; i < SLOTS; i++) {
		if (!b->slots[i].entry)
			break;
		if (b->slots[i].tag == tag) {
			place = b->slots[i].entry;
			break;
		}
	}
	if (!place)
		return 0;
	struct entry *e = record(image, place, ENTRY_MAX);
	if (!e || e->length != length)
		return 0;
	__u32 types = e->types + e->below;
	if (types > TYPES_MAX)
		return 0;
	__u8 *name = (void *)(e + 1) + types * sizeof(struct type);
	__u64 differ = 0;
	for (__u32 i = 0; i < NAME_MAX; i += 8) {
		if (i >= length)
			break;
		__u64 word = get64(w->name + ((off + i) & 0xff));
		if (length - i < 8)
			word &= (1ULL << (length - i) * 8) - 1;
		differ |= word ^ get64(name + i);
	}
	return differ ? 0 : e;
}

// select returns the place of an entry's answer to a type.
static __always_inline __u32 select(struct entry *e, __u16 qtype, bool below)
{
	struct type *types = (void *)(e + 1);
	__u32 from = below ? e->types : 0, count = below ? e->below : e->types;
	for (__u32 i = 0; i < TYPES_MAX; i++) {
		if (i >= count)
			break;
		struct type *t = &types[(from + i) & (TYPES_MAX - 1)];
		if (t->qtype == qtype)
			return t->answer;
	}
	return below ? e->below_other : e->other;
}

// lookup finds the answer to a question.
static __always_inline enum outcome lookup(void *image, struct header *head, struct workspace *w, struct query *q, __u32 *place)
{
	__u32 off = 0, left = q->named;
	for (int i = 0; i <= PARENTS_MAX; i++) {
		if (left <= 1 || left > NAME_MAX)
			return NAME; // nothing compresses to the root
		struct entry *e = find(image, head, w, off, left);
		if (e) {
			*place = select(e, q->qtype, i > 0);
			return *place ? ANSWERED : ANSWER;
		}
		left = forget(w, left);
		__u32 label = 1 + w->name[off & 0x7f];
		if (label >= left)
			return NAME;
		off = forget(w, off + label);
		left = forget(w, left - label);
	}
	return NAME;
}

// lower makes the lowered name, 8 octets at a time. Octets of lengths are below
// the letters.
static __always_inline void lower(struct workspace *w, __u32 length)
{
	const __u64 ones = 0x0101010101010101;
	for (__u32 i = 0; i < NAME_MAX; i += 8) {
		if (i >= length)
			break;
		__u64 x = get64(w->msg + 12 + i), seven = x & 0x7f * ones;
		// The high bit of each octet says that it is at least 'A', or above 'Z'.
		__u64 from = seven + (0x80 - 'A') * ones, above = seven + (0x80 - 'Z' - 1) * ones;
		get64(w->name + i) = x | (((from ^ above) & ~x & 0x80 * ones) >> 2);
	}
}

// is_meta reports whether there are no records of a type, or, as for DS, whether
// their zone is another one than that of the name.
static __always_inline bool is_meta(__u16 qtype)
{
	return qtype == 0 || qtype == 41 || qtype == 43 || (qtype >= 128 && qtype <= 255);
}

// read_subnet reads the option of an OPT record that ends with it (RFC 7871
// section 6). What follows the message in the workspace is zero.
static __always_inline bool read_subnet(struct workspace *w, struct query *q, __u32 at, __u32 length)
{
	__u8 *data = w->msg + (at & 0xff);
	__u32 octets, bits;
	if (length < 4 || length > 20 || data[3])
		return false;
	bits = data[2];
	octets = (bits + 7) / 8;
	if (length - 4 != octets)
		return false;
	if (get16(data) == bpf_htons(1) && bits <= 32)
		q->asker6 = 0;
	else if (get16(data) == bpf_htons(2) && bits <= 128)
		q->asker6 = 1;
	else
		return false;
	if (bits % 8 && data[(3 + octets) & 0x1f] & 0xff >> bits % 8)
		return false;
	copy16(w->subnet, data);
	get32(w->subnet + 16) = get32(data + 16);
	copy16(w->asker, data + 4);
	q->subnet = length;
	q->source = bits;
	return true;
}

// read_query reads the message in the workspace, whose size is at least that of
// the shortest question.
static __always_inline enum outcome read_query(struct workspace *w, struct query *q)
{
	// Not a response, opcode QUERY, one question, no other records but one
	// additional at most.
	if (w->msg[2] & 0xf8 || get32(w->msg + 4) != bpf_htonl(1 << 16) || get16(w->msg + 8) || w->msg[10] || w->msg[11] > 1)
		return SHAPE;
	__u32 at = 12, zero = 0;
	for (int i = 0; i < LABELS_MAX; i++) {
		__u32 label = w->msg[at & 0xff];
		if (label > 63)
			return SHAPE;
		at += 1 + label;
		if (at > 12 + NAME_MAX)
			return SHAPE;
		if (!label) {
			zero = 1;
			break;
		}
	}
	if (!zero)
		return SHAPE;
	at = forget(w, at) & 0xff;
	q->named = at - 12;
	q->end = at + 4;
	if (q->end > q->size || get16(w->msg + at + 2) != bpf_htons(1))
		return SHAPE;
	q->qtype = bpf_ntohs(get16(w->msg + at));
	if (is_meta(q->qtype))
		return SHAPE;
	q->limit = 512;
	if (!w->msg[11])
		return q->end == q->size ? ANSWERED : SHAPE;

	__u8 *opt = w->msg + at + 4;
	if (q->end + 11 > q->size || opt[0] || get16(opt + 1) != bpf_htons(41) || opt[6] ||
	    bpf_ntohs(get16(opt + 9)) != q->size - q->end - 11)
		return SHAPE;
	q->edns = 1;
	q->dnssec = opt[7] >> 7;
	if (q->dnssec && opt[7] & 0x40)
		return SIGNATURE; // how absence is proved is asked for too
	__u32 limit = bpf_ntohs(get16(opt + 3));
	q->limit = limit < 512 ? 512 : limit > UDP_PAYLOAD ? UDP_PAYLOAD : limit;
	if (q->end + 11 == q->size)
		return ANSWERED;
	if (q->end + 15 > q->size || get16(opt + 11) != bpf_htons(8) || bpf_ntohs(get16(opt + 13)) != q->size - q->end - 15)
		return OPTION;
	return read_subnet(w, q, at + 4 + 15, q->size - q->end - 15) ? ANSWERED : OPTION;
}

// routable reports whether an answer may go to an address: not if it is of this
// host, of a link only, or of a group.
static __always_inline bool routable(struct workspace *w, bool ipv6)
{
	__u8 *a = w->source;
	if (!ipv6)
		return a[12] != 0 && a[12] != 127 && a[12] < 224 && get32(a + 12) != get32(w->destination + 12);
	if (a[0] == 0xff || (a[0] == 0xfe && (a[1] & 0xc0) == 0x80))
		return false;
	if (get64(a) == get64(w->destination) && get64(a + 8) == get64(w->destination + 8))
		return false;
	return get64(a) != 0; // ::, ::1, ::ffff:0:0/96 and more that is not given out
}

// read_packet reads the headers of a packet to one of the server's endpoints, and
// then the message into the workspace. It reports false for all other packets.
static __always_inline bool read_packet(struct xdp_md *ctx, struct workspace *w, struct query *q, struct control *control, enum outcome *out)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	if (data + sizeof *eth + 4 > end)
		return false;
	__be16 protocol = eth->h_proto;
	__u32 l3 = sizeof *eth, l4;
	if (protocol == bpf_htons(ETH_P_8021Q)) {
		protocol = get16(data + sizeof *eth + 2);
		l3 = sizeof *eth + 4;
	}
	struct endpoint to = {};
	__u32 length;
	if (protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data + l3;
		if ((void *)(ip + 1) > end || *(__u8 *)ip != 0x45 || ip->protocol != IPPROTO_UDP || ip->frag_off & bpf_htons(0x3fff))
			return false;
		__u64 total = (__u64)get32(ip) + get32((void *)ip + 4) + get32((void *)ip + 8) + get32((void *)ip + 12) + get32((void *)ip + 16);
		if (folded(total) != 0xffff)
			return false;
		length = bpf_ntohs(ip->tot_len) - sizeof *ip;
		l4 = l3 + sizeof *ip;
		q->ipv6 = 0;
		get64(w->source) = get64(w->destination) = 0;
		get32(w->source + 8) = get32(w->destination + 8) = bpf_htonl(0xffff);
		get32(w->source + 12) = ip->saddr;
		get32(w->destination + 12) = ip->daddr;
	} else if (protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data + l3;
		if ((void *)(ip + 1) > end || *(__u8 *)ip >> 4 != 6 || ip->nexthdr != IPPROTO_UDP)
			return false;
		length = bpf_ntohs(ip->payload_len);
		l4 = l3 + sizeof *ip;
		q->ipv6 = 1;
		__builtin_memcpy(w->source, &ip->saddr, 16);
		__builtin_memcpy(w->destination, &ip->daddr, 16);
	} else {
		return false;
	}
	struct udphdr *udp = data + l4;
	if ((void *)(udp + 1) > end)
		return false;
	__builtin_memcpy(to.address, w->destination, 16);
	to.port = udp->dest;
	if (!bpf_map_lookup_elem(&endpoints, &to))
		return false;

	*out = SHAPE;
	q->l3 = l3;
	q->l4 = l4;
	q->edns = q->dnssec = 0;
	q->subnet = 0;
	__u32 size = bpf_ntohs(udp->len) - sizeof *udp;
	if (bpf_ntohs(udp->len) != length || size < 12 + 5 || size >= QUERY_MAX || !udp->source || !routable(w, q->ipv6) ||
	    get32(eth->h_dest) != get32(control->mac) || get16(eth->h_dest + 4) != get16(control->mac + 4))
		return true;
	__builtin_memset(w->msg, 0, QUERY_MAX + 16);
	q->size = size;
	if (bpf_xdp_load_bytes(ctx, l4 + sizeof *udp, w->msg, size))
		return true;
	*out = CHECKSUM;
	if (udp->check ? folded(sum(pseudo(w, q, udp) + udp->check, w->msg, QUERY_MAX)) != 0xffff : q->ipv6)
		return true;
	*out = ANSWERED;
	return true;
}

// within counts an answer and reports whether it is within the rate, by the same
// rule as the sockets' limiter.
static __always_inline bool within(struct workspace *w, struct query *q, __u64 answer, __u64 interval)
{
	struct client key = {.answer = answer};
	if (q->ipv6) // a /56
		key.network = bpf_be64_to_cpu(get64(w->source)) >> 8;
	else // a /24
		key.network = 1ULL << 63 | bpf_ntohl(get32(w->source + 12)) >> 8;
	__u64 now = bpf_ktime_get_ns();
	__u64 *until = bpf_map_lookup_elem(&rates, &key);
	if (!until) {
		__u64 none = 0;
		bpf_map_update_elem(&rates, &key, &none, BPF_NOEXIST); // may be there by now
		until = bpf_map_lookup_elem(&rates, &key);
		if (!until)
			return false;
	}
	for (int i = 0; i < 4; i++) {
		__u64 held = *(volatile __u64 *)until;
		__u64 used = held > now ? held : now;
		if (used - now > SECOND - interval)
			return false;
		if (__sync_val_compare_and_swap(until, held, used + interval) == held)
			return true;
	}
	return false; // many at once: the sockets count them
}

// choose finds the addresses for the client; counts[0] is theirs.
static __always_inline struct addresses *choose(void *image, struct workspace *w, struct query *q, __u32 place, __u8 *scope)
{
	struct steering *s = record(image, place, sizeof *s);
	if (!s)
		return 0;
	__u32 decision;
	if (q->subnet && !q->source) {
		decision = s->nowhere;
	} else {
		__u8 v6 = q->subnet ? q->asker6 : q->ipv6;
		if (!q->subnet) {
			if (v6)
				copy16(w->asker, w->source);
			else
				get32(w->asker) = get32(w->source + 12);
		}
		__u32 leaf = decide(image, s->trees[v6 & 1], w->asker, v6);
		decision = LEAF_DECISION(leaf);
		*scope = LEAF_DEPTH(leaf);
	}
	if (decision == UNDECIDED)
		return 0;
	__u32 at = s->choices + decision / 2;
	__u32 *pair = record(image, at, UNIT);
	if (!pair)
		return 0;
	__u32 chosen = pair[decision & 1];
	return chosen ? record(image, chosen, sizeof(struct addresses)) : 0;
}

// compose makes the answer out of the query in the workspace.
static __always_inline enum outcome compose(void *image, struct header *head, struct workspace *w, struct query *q, struct control *control, __u32 place)
{
	struct answer *a = record(image, place, sizeof *a + BODY_MAX);
	if (!a)
		return ANSWER;
	if (a->secure && q->dnssec)
		return SIGNATURE;
	__u32 body = a->body, each = a->ipv6 ? 28 : 16;
	if (body > BODY_MAX)
		return ANSWER;
	struct addresses *addresses = 0;
	__u32 count = 0;
	__u8 scope = 0;
	if (a->steering) {
		addresses = choose(image, w, q, a->steering, &scope);
		if (!addresses)
			return ANSWER;
		count = addresses->count;
		if (count > ADDRESSES_MAX)
			return ANSWER;
	}
	__u32 options = q->subnet ? 4 + q->subnet : 0;
	__u32 size = q->end + body + count * each + (q->edns ? 11 + options : 0);
	if (size > q->limit || size > MESSAGE_MAX)
		return SIZE;
	if (control->interval) {
		__u32 leaf = decide(image, head->exempt[q->ipv6 & 1], q->ipv6 ? w->source : w->source + 12, q->ipv6);
		if (LEAF_DECISION(leaf) != 1 && !within(w, q, a->id, control->interval))
			return LIMIT;
	}
	__be16 rd = get16(w->msg + 2) & bpf_htons(0x0100);
	get16(w->msg + 2) = a->flags | bpf_htons(0x8000) | rd;
	get16(w->msg + 6) = bpf_htons(bpf_ntohs(a->answers) + count);
	get16(w->msg + 8) = a->authorities;
	get16(w->msg + 10) = bpf_htons(bpf_ntohs(a->additionals) + q->edns);

	__u32 at = q->end;
	__u8 *from = (void *)(a + 1);
	for (__u32 i = 0; i < BODY_MAX; i += 8) {
		if (i >= body)
			break;
		get64(w->msg + ((at + i) & (MESSAGE_MAX - 1))) = get64(from + i);
	}
	__u32 by = q->named - a->base;
	if (by) {
		for (__u32 i = 0; i < MOVING_MAX; i++) {
			if (i >= a->moving)
				break;
			__u8 *pointer = w->msg + ((at + a->pointers[i]) & (MESSAGE_MAX - 1));
			get16(pointer) = bpf_htons(bpf_ntohs(get16(pointer)) + by);
		}
	}
	at = forget(w, at + body);
	for (__u32 i = 0; i < ADDRESSES_MAX; i++) {
		if (i >= count || !addresses)
			break;
		__u8 *rr = w->msg + (at & (MESSAGE_MAX - 1));
		get16(rr) = a->owner;
		get16(rr + 2) = a->ipv6 ? bpf_htons(28) : bpf_htons(1);
		get16(rr + 4) = bpf_htons(1);
		get32(rr + 6) = a->ttl;
		get16(rr + 10) = a->ipv6 ? bpf_htons(16) : bpf_htons(4);
		if (a->ipv6)
			copy16(rr + 12, addresses->octets + 16 * i);
		else
			get32(rr + 12) = get32(addresses->octets + 4 * i);
		at += each;
	}
	at = forget(w, at);
	if (q->edns) {
		__u8 *opt = w->msg + (at & (MESSAGE_MAX - 1));
		opt[0] = 0;
		get16(opt + 1) = bpf_htons(41);
		get16(opt + 3) = bpf_htons(UDP_PAYLOAD);
		get16(opt + 5) = 0;
		get16(opt + 7) = q->dnssec ? bpf_htons(0x8000) : 0;
		get16(opt + 9) = bpf_htons(options);
		if (q->subnet) {
			get16(opt + 11) = bpf_htons(8);
			get16(opt + 13) = bpf_htons(q->subnet);
			copy16(opt + 15, w->subnet);
			get32(opt + 31) = get32(w->subnet + 16);
			opt[18] = scope;
		}
	}
	q->size = size;
	return ANSWERED;
}

// send puts the answer into the packet and turns that around.
static __always_inline int send(struct xdp_md *ctx, struct workspace *w, struct query *q)
{
	__u32 size = q->size, l3 = q->l3, l4 = q->l4;
	if (size < 12 || size > MESSAGE_MAX || l3 > L3_MAX || l4 > L4_MAX)
		return XDP_PASS;
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u64 length = end - data;
	keep(length);
	if (data + L3_MAX > end || data + l4 + sizeof(struct udphdr) > end)
		return XDP_PASS;
	copy16(w->link, data);
	get16(w->link + 16) = get16(data + 16);
	get32(w->ports) = get32(data + l4);
	// Drivers leave room in front of a packet, but some, such as veth, little behind.
	int grow = (int)(l4 + sizeof(struct udphdr) + size) - (int)length;
	if (bpf_xdp_adjust_tail(ctx, grow) && (grow <= 0 || bpf_xdp_adjust_head(ctx, -grow)))
		return XDP_PASS;
	// From here on the query is gone. The headers may be where they were or not.
	if (bpf_xdp_store_bytes(ctx, l4 + sizeof(struct udphdr), w->msg, size))
		return XDP_ABORTED;
	data = (void *)(long)ctx->data, end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct udphdr *udp = data + l4;
	if (data + L3_MAX > end || (void *)(udp + 1) > end)
		return XDP_ABORTED;
	__builtin_memcpy(eth->h_dest, w->link + 6, 6);
	__builtin_memcpy(eth->h_source, w->link, 6);
	get16(data + 12) = get16(w->link + 12);
	if (l3 > sizeof *eth)
		get32(data + 14) = get32(w->link + 14);
	udp->source = w->ports[1];
	udp->dest = w->ports[0];
	udp->len = bpf_htons(size + sizeof *udp);
	get64(w->msg + size) = 0;
	__u64 total = pseudo(w, q, udp);
	for (__u32 i = 0; i < MESSAGE_MAX; i += 8) {
		if (i >= size)
			break;
		__u64 word = get64(w->msg + i);
		total += (word & 0xffffffff) + (word >> 32);
	}
	__u16 check = ~folded(total);
	udp->check = check ? check : 0xffff;

	if (q->ipv6) {
		struct ipv6hdr *ip = data + l3;
		if ((void *)(ip + 1) > end)
			return XDP_ABORTED;
		get32(ip) = bpf_htonl(6 << 28);
		ip->payload_len = udp->len;
		ip->nexthdr = IPPROTO_UDP;
		ip->hop_limit = 64;
		__builtin_memcpy(&ip->saddr, w->destination, 16);
		__builtin_memcpy(&ip->daddr, w->source, 16);
		return XDP_TX;
	}
	struct iphdr *ip = data + l3;
	if ((void *)(ip + 1) > end)
		return XDP_ABORTED;
	get16(ip) = bpf_htons(0x4500);
	ip->tot_len = bpf_htons(size + sizeof *udp + sizeof *ip);
	ip->id = 0;
	ip->frag_off = bpf_htons(0x4000); // never to be cut (RFC 9715)
	ip->ttl = 64;
	ip->protocol = IPPROTO_UDP;
	ip->check = 0;
	ip->saddr = get32(w->destination + 12);
	ip->daddr = get32(w->source + 12);
	ip->check = ~folded((__u64)get32(ip) + get32((void *)ip + 4) + get32((void *)ip + 8) + ip->saddr + ip->daddr);
	return XDP_TX;
}

static __always_inline void count(enum outcome out)
{
	__u32 key = out;
	__u64 *counter = bpf_map_lookup_elem(&outcomes, &key);
	if (counter)
		++*counter;
}

SEC("xdp")
int answer(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct control *control = bpf_map_lookup_elem(&controls, &zero);
	struct workspace *w = bpf_map_lookup_elem(&workspaces, &zero);
	enum outcome out = STALE;
	if (!control || !w)
		return XDP_PASS;
	struct query *q = &w->query;
	if (!read_packet(ctx, w, q, control, &out))
		return XDP_PASS;
	int verdict = XDP_PASS;
	if (out != ANSWERED)
		goto done;
	out = STALE;
	void *image = bpf_map_lookup_elem(&current, &zero);
	if (!image || bpf_ktime_get_coarse_ns() >= control->until)
		goto done;
	struct header *head = page(image, 0);
	if (!head)
		goto done;
	step();
	out = read_query(w, q);
	if (out != ANSWERED)
		goto done;
	lower(w, q->named);
	step();
	__u32 place = 0;
	out = lookup(image, head, w, q, &place);
	if (out != ANSWERED)
		goto done;
	step();
	out = compose(image, head, w, q, control, place);
	if (out != ANSWERED)
		goto done;
	step();
	verdict = send(ctx, w, q);
	if (verdict != XDP_TX)
		out = verdict == XDP_PASS ? ROOM : FAULT;
done:
	count(out);
	return verdict;
}
