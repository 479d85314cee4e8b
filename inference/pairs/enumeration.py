"""Sum discrete sites out of a model's log densities, exactly, and draw them given all others."""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from opt_einsum import contract_path
from pyro import poutine
from pyro.infer import infer_discrete
from pyro.ops import packed
from pyro.ops.contract import contract_to_tensor
from pyro.ops.rings import LogRing
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from .programs import Program
from .sites import latent_sites


def is_summed_out(site: Any) -> bool:
    """Whether a trace holds all values of a site, along a dimension of their own."""
    return site["infer"].get("_enumerate_dim") is not None


def summed_out(in_guide: Mapping[str, Any], in_model: Mapping[str, Any]) -> tuple[str, ...]:
    """The latent sites of a model that are to be summed out: the guide does not have them."""
    return tuple(
        name
        for name in sorted(in_model.keys() - in_guide.keys())
        if in_model[name]["infer"].get("enumerate")
    )


def check_can_be_summed(name: str, site: Any) -> None:
    """Refuse a site that is marked to be enumerated, but cannot be summed out exactly.

    Raises:
        ValueError: with the name of the site, and what to do.
    """
    how = site["infer"]["enumerate"]
    if how != "parallel":
        raise ValueError(
            f"the model marks {name!r} as enumerate={how!r}, and the guide does not draw it: mark "
            "it infer={'enumerate': 'parallel'}, and it is summed out"
        )
    if site["infer"].get("num_samples"):
        raise ValueError(
            f"the model marks {name!r} with num_samples: a few draws do not sum it out; leave "
            "num_samples out, or let the guide draw the site"
        )
    if not getattr(site["fn"], "has_enumerate_support", False):
        raise ValueError(
            f"the model marks {name!r} to be summed out, but its distribution has no finite list "
            "of values: let the guide draw it"
        )


def trace_all_values(
    program: Program, args: tuple[Any, ...], values: Trace, first_available_dim: int
) -> Trace:
    """Trace a program at given values, with all values of each site to be enumerated at once.

    Args:
        values: a trace of the sites that have one value.
        first_available_dim: the dimension of the first such site, left of all plates.
    """
    # The enumerating handler stands inside the replay, as in Pyro's TraceEnum_ELBO: it must see a
    # site's Markov scope, which the replay overwrites.
    enumerated = poutine.enum(program, first_available_dim=first_available_dim)
    own = Trace()
    for name, site in latent_sites(values).items():  # enumeration writes on a site's ``infer``
        own.add_node(name, **{**site, "infer": dict(site["infer"])})
    return poutine.trace(poutine.replay(enumerated, trace=own)).get_trace(*args)


def draw_summed_out(
    program: Program, args: tuple[Any, ...], values: Trace, first_available_dim: int
) -> Trace:
    """Draw the sites to be enumerated from their exact posterior p(k | x, z) at given values z.

    By forward filtering and backward sampling (``pyro.infer.infer_discrete``). An element that a
    mask leaves out is drawn uniformly from its support.

    Returns:
        A trace of the given latent sites and of those drawn.
    """
    given = {name: site["value"] for name, site in latent_sites(values).items()}
    # Conditioned, not replayed: Pyro's enumeration does not look at a site that is replayed.
    conditioned = poutine.condition(program, data=given)
    sampled = infer_discrete(conditioned, first_available_dim=first_available_dim)
    found = latent_sites(poutine.trace(sampled).get_trace(*args))
    complete = Trace()
    for name, site in latent_sites(values).items():
        complete.add_node(name, **site)
    for name, site in found.items():
        distribution = site["fn"]
        shape = distribution.batch_shape + distribution.event_shape
        # Without what enumeration marked, the site is replayed as any other.
        complete.add_node(name, **{**site, "value": site["value"].expand(shape), "infer": {}})
    return complete


def varies(site: Any) -> bool:
    """Whether the log density of a site depends on a site that is summed out.

    It then has a dimension that belongs to none of its plates.
    """
    owned = {frame.dim for frame in site["cond_indep_stack"] if frame.vectorized}
    shape = _log_density(site).shape
    return any(size > 1 and dim - len(shape) not in owned for dim, size in enumerate(shape))


def sum_out(sites: Sequence[Any], plates: Sequence[str]) -> Tensor:
    """Add the log densities of sites inside the data plate, and sum out the enumerated ones.

    ::

        log Σ_k Π_i p_i(k),   k all values of the enumerated sites

    by variable elimination, plate by plate (Obermeyer et al. 2019, arXiv 1902.03210). Masks are
    applied, scales are not. As in Pyro's ``TraceEnum_ELBO`` an enumerated site itself is not
    masked: its probabilities add up to 1 where nothing that is observed depends on it.

    Args:
        sites: of one trace; their log densities have the dimensions of their plates, and to the
            left of these one for each enumerated site that they depend on.
        plates: the names of the plates that are kept, as dimensions in this order.

    Raises:
        NotImplementedError: if plates that do not lie within one another depend on one site.
    """
    trace = Trace()
    for site in sites:
        trace.add_node(site["name"], **site)
    trace.symbolize_dims()
    symbols = trace.plate_to_symbol
    tree: OrderedDict[frozenset[str], list[Tensor]] = OrderedDict()
    sizes: dict[str, int] = {}
    for site in sites:
        frames = [frame for frame in site["cond_indep_stack"] if frame.vectorized]
        sizes |= {symbols[frame.name]: frame.size for frame in frames}
        ordinal = frozenset(symbols[frame.name] for frame in frames)
        tree.setdefault(ordinal, []).append(_packed(site))
    summed = {site["infer"]["_enumerate_symbol"] for site in sites if is_summed_out(site)}
    kept = [symbols[name] for name in plates]
    ring = _LogDensities(dim_to_size=sizes)
    total: Any = contract_to_tensor(tree, summed, frozenset(kept), ring=ring)
    order = [total._pyro_dims.index(symbol) for symbol in kept]
    return total.permute(order)


def _log_density(site: Any) -> Tensor:
    """The log density of a site at each of its values, computed once."""
    if "unscaled_log_prob" not in site:
        value, args, kwargs = site["value"], site["args"], site["kwargs"]
        site["unscaled_log_prob"] = site["fn"].log_prob(value, *args, **kwargs)
    return site["unscaled_log_prob"]


def _packed(site: Any) -> Any:
    """The log density of a site as Pyro's contraction takes it: a name for each dimension."""
    symbols = site["infer"]["_dim_to_symbol"]
    log_density = packed.pack(_log_density(site), symbols)
    if is_summed_out(site):
        return log_density
    return packed.scale_and_mask(log_density, mask=packed.pack(site["mask"], symbols))


class _LogDensities(LogRing):
    """Pyro's sums and products of log densities, without underflow.

    Pyro's own sum leaves log space with one factor at a time: two factors that favour different
    values by a hundred nats each give −∞ in float32.
    """

    def sumproduct(self, terms: Iterable[Any], dims: Iterable[str]) -> Tensor:
        """log Σ over ``dims`` of the product of terms, pair by pair, the cheapest first."""
        left, summed = list(terms), frozenset(dims)
        inputs = [term._pyro_dims for term in left]
        output = "".join(sorted(set("".join(inputs)) - summed))
        shapes = [term.shape for term in left]
        path, _ = contract_path(f"{','.join(inputs)}->{output}", *shapes, shapes=True)
        uses = Counter(dim for term in left for dim in term._pyro_dims)
        for places in path:
            chosen: Any = [left.pop(place) for place in sorted(places, reverse=True)]
            uses.subtract(dim for term in chosen for dim in term._pyro_dims)
            left.append(_multiply(chosen, {dim for dim in summed if not uses[dim]}))
            uses.update(left[-1]._pyro_dims)
        return left[0]


def _multiply(terms: Sequence[Any], summed: set[str]) -> Any:
    """log Σ over some dimensions of the product of terms that are given as logarithms."""
    aligned = packed.broadcast_all(*terms)
    names = aligned[0]._pyro_dims
    product: Any = sum(aligned[1:], aligned[0])
    places = [place for place, name in enumerate(names) if name in summed]
    product = product.logsumexp(places) if places else product[...]
    product._pyro_dims = "".join(name for name in names if name not in summed)
    return product
