import pytest

from hooks import Site, sites
from hooks.sites import STREAMS


@pytest.mark.parametrize("stream", STREAMS)
def test_a_site_is_found_again_by_the_name_transformer_lens_gives_it(stream):
    site = Site(stream) if stream in ("embed", "final") else Site(stream, 5)
    assert Site.from_name(site.hook_name) == site


def test_the_names_are_those_of_transformer_lens():
    assert Site("z", 5).hook_name == "blocks.5.attn.hook_z"
    assert Site.from_name("blocks.3.hook_out") == Site("resid_post", 3)
    assert Site.from_name("blocks.0.attn.o.hook_in") == Site("z", 0)


def test_every_site_is_a_hook_point_of_the_small_models(small):
    for stream in small.access.readable:
        assert all(site.hook_name in small.hook_dict for site in sites.all(small, stream))


def test_all_gives_one_site_for_each_layer(tiny):
    assert sites.all(tiny, "z") == [Site("z", 0), Site("z", 1)]
    assert sites.all(tiny, "final") == [Site("final")]


@pytest.mark.parametrize("name", ["blocks.1.hook_nothing", "hook_z", "blocks.2.hook_embed", "ln1"])
def test_a_name_that_is_no_site_is_refused(name):
    with pytest.raises(ValueError, match="is no site of ours; known"):
        Site.from_name(name)


def test_a_site_that_cannot_be_is_refused():
    with pytest.raises(Exception, match="zz"):
        Site("zz", 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="give a layer"):
        Site("z")
    with pytest.raises(ValueError, match="exists once"):
        Site("embed", 3)


def test_what_a_model_lacks_is_refused_with_what_it_has(tiny):
    with pytest.raises(ValueError, match=r"q_rot cannot be read in GPT2.*Can be read: embed"):
        sites.all(tiny, "q_rot")
    with pytest.raises(ValueError, match="its layers are 0 to 1"):
        sites.check_readable(tiny, Site("z", 2))


def test_a_model_that_was_not_wrapped_is_refused():
    with pytest.raises(Exception, match=r"models\.wrap|Type-check"):
        sites.all(object(), "z")  # type: ignore[arg-type]
