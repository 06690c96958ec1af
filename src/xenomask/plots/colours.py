"""The colours of maps: matplotlib's inferno, without matplotlib, whose import takes half a second.

Perceptually uniform and readable without colour vision.
"""

import base64

import numpy as np

# "inferno" by Nathaniel Smith and Stefan van der Walt, CC0 (https://bids.github.io/colormap): 256 colours, RGB
_INFERNO = (
    "0009300aO41_1yE0RagC0Sf{F4gvxY0|F8R0~7=U76k+t1_T=i1sw<m9|;B_3I`(#2PO>&C=LiJ4+$+02`>@~G7}0k6bm*M3pp1HI~fZ;8Vf)i3_"
    "~3ZMIQ`DAPh<(3rr*nP9_UbCks+33sfr#RxJuxE(%&O3S2S?T{H<_H3?uh31K-2Vmk?BJPBn!31&bEW<d#OLkeg`3TZ|PX-ErdN(*XB3~NmcYflY"
    "qPz`KS4s25nZB-9#R}XDi5N%o!ZCep;T@r3z5^i7<ZekQ}V-#*>6>eq~ZfF*6Y8P&67jA7BZf+QEa2alL8EtbKZFL)Mb{lPY9Bq0WZF?PTeI0Cm9"
    "&CUgYk?nYgCJ{#AZmsoYKS3fi6Uu>B592yX^tdlkR)i4C1;Z*XO$*qmL_JHCuNx^WSb~toGD|TDPy22VxcQxqbp&gEMTTAU#Bf!sV-itE?ulIT&^"
    "%%uQ6M(F<P=RS+p})wKG?@G*-AZR=PG-yEjz5H&ebiQolJ-!8%aFJ5R(sPQ^V<$39HRK1<0zO3Oe=%t1)aLPyU;M$kn>(MChkM?%y{LDfk>)=EFu"
    "OFr36J=#t?+fO>&P&wUFINnn?-&8i>Ry5*QGvin?<XSQ1TQKHaF6Le>=U*)7VJqokD(Yk?>t!eGXD01vCGBb>?rb9OZ6WY)AMkJ<@p2vVbR6<^8u"
    "ND<^LZHbdKUG374?1;_J9)hff4tE5ch=+_=gSnhz$6O3;B!*`Hl$rkO=yb2l|r+`jrOymj?Tp2K$=^`<({+o(KD&2m7K3`=ko{rVIP14g0DN`>YW"
    "At`hsO6#KCj`?DDPwHo`k9Q(N*`nw_ey(9X+CHlcA`NJyt#Vq;9FZjtZ_{%i-%{TYYI``2$_R~N1)k5{xMfKT8^xI4H+)wk~QuE+e^Ws_Z<X!USV"
    "Dac=@#$#s>umAuaPjVR@$h-^@_q92f%5c)^Y)4K_l@=Vk@otP_xqXo{GIy!p#1)%"
)  # fmt: skip
TABLE = np.frombuffer(base64.b85decode(_INFERNO), np.uint8).reshape(256, 3)
